//! A host of the test's own, driven by the program as a user would.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

pub mod pool;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A running host; dropping it brings it down.
pub struct Host {
    directory: TempDir,
}

impl Host {
    /// Writes `host_file` and brings the host up; its agents are ready.
    pub fn up(host_file: &str) -> Self {
        Self::up_with(host_file, &[])
    }

    /// The same with files beside the host file.
    pub fn up_with(host_file: &str, files: &[(&str, &str)]) -> Self {
        let host = Self::prepare(host_file, files);
        let up = host.up_again();
        assert!(up.status.success(), "berth up: {}", String::from_utf8_lossy(&up.stderr));
        host
    }

    /// Writes them only: [`Host::comes_back`] brings it up.
    pub fn prepare(host_file: &str, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-test-").tempdir().unwrap();
        std::fs::write(directory.path().join("berth.toml"), host_file).unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Self { directory }
    }

    /// Process id of the host, as it wrote it.
    pub fn pid(&self) -> String {
        std::fs::read_to_string(self.path("state/lock")).unwrap().trim().to_owned()
    }

    /// Kills the host; its guests go on.
    pub fn kill(&self) {
        kill(&self.pid());
    }

    /// `berth up` again, on the same directory and file.
    pub fn up_again(&self) -> Output {
        self.run(&["up", "--detach", "-f", self.path("berth.toml").to_str().unwrap()])
    }

    /// The same; it must succeed.
    pub fn comes_back(&self) {
        let up = self.up_again();
        assert!(
            up.status.success(),
            "berth up: {}\n{}",
            String::from_utf8_lossy(&up.stderr),
            std::fs::read_to_string(self.path("state/host.log")).unwrap_or_default()
        );
    }

    /// A path in the host's directory.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// A command on this host.
    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.directory.path(), arguments)
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Exit status and the last JSON object of a command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let mut all = arguments.to_vec();
        all.push("--json");
        let output = self.run(&all);
        let text = String::from_utf8_lossy(&output.stdout);
        let last = serde_json::Deserializer::from_str(&text)
            .into_iter::<Value>()
            .map_while(Result::ok)
            .last();
        let last = last.unwrap_or_else(|| {
            panic!(
                "{arguments:?}: no JSON in {text:?}; {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        (output.status.code().unwrap(), last)
    }

    /// What a command in the guest prints; it must succeed.
    pub fn exec(&self, name: &str, command: &[&str]) -> String {
        let mut arguments = vec!["exec", name, "--"];
        arguments.extend(command);
        let output = self.run(&arguments);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A partition's line of `status --json`.
    pub fn partition(&self, name: &str) -> Value {
        let (_, status) = self.json(&["status"]);
        let partitions = status["partitions"].as_array().unwrap();
        partitions.iter().find(|partition| partition["name"] == name).unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if !down.status.success() && !thread::panicking() {
            panic!("berth down: {}", String::from_utf8_lossy(&down.stderr));
        }
    }
}

/// Kills a process and waits until it is gone.
pub fn kill(pid: &str) {
    let killed = Command::new("kill").args(["-KILL", pid]).status().unwrap();
    assert!(killed.success());
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // A zombie with no other thread has closed its files, and whoever should
    // wait for it may not.
    let alive = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        threads > 1 || !(status.is_empty() || status.contains("State:\tZ"))
    };
    while alive() {
        assert!(std::time::Instant::now() < deadline, "{pid} cannot be killed");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Process ids of those that call themselves `name` and have `needle` among
/// their open files, like a socket or log in a state directory.
pub fn processes(name: &str, needle: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let named = processes.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let files = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        line.starts_with(format!("{name}\0").as_bytes())
            && files
                .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .any(|target| target.starts_with(needle))
    });
    named.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// `berth ARGUMENTS` on the state directory inside `directory`.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    command.env("BERTH_STATE_DIR", directory.join("state")).env("RUST_LOG", "info,host=debug");
    command.args(arguments);
    command
}

/// The self-checking program in a guest.
pub struct SelfCheck {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl SelfCheck {
    pub fn start(host: &Host, name: &str) -> Self {
        let mut child = host
            .command(&["exec", name, "--", "/run/berth/self-check", "16", "/data/self-check"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, stdin, lines }
    }

    /// The next report.
    pub fn report(&mut self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("the guest reports");
        serde_json::from_str(&line).expect("a report")
    }

    /// Ends the program; it must have found nothing wrong. Its last report.
    pub fn end(mut self) -> Value {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success(), "the self check found something");
        let last = self.lines.iter().last().expect("a last report");
        serde_json::from_str(&last).expect("a report")
    }
}

impl Drop for SelfCheck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
