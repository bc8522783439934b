//! The HTTP interface against its own description, by a tool that knows neither
//! this host nor this program.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Host;

/// The tool, as the Python Package Index has it.
const TOOL: &str = "schemathesis==4.32.5";
/// Requests of each kind for each thing that can be asked.
const EXAMPLES: &str = "40";
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(400);

/// Nothing runs in these.
const IDLE: &str = r#"
[main_storage]
size = "512M"

[[partition]]
name = "a"
origin = "0"
size = "64M"
image = "minimal"
autostart = false

[[partition]]
name = "b"
origin = "128M"
size = "64M"
image = "minimal"
autostart = false
"#;

/// What is asked about things there are, is asked about this one.
const KNOWN: &str = "[parameters]\n\"path.name\" = \"b\"\n";

/// The tool's program, which is installed the first time.
fn tool() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(TOOL.replace("==", "-"));
    let program = home.join("bin/schemathesis");
    if program.exists() {
        return program;
    }
    let run = |program: &Path, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).output();
        let done = done.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{TOOL} cannot be installed; this needs Python with venv (`apt-get install \
             python3-venv`) and its package index: {said}"
        );
    };
    run(Path::new("python3"), &["-m", "venv", home.to_str().unwrap()]);
    let quiet = ["install", "--quiet", "--disable-pip-version-check", TOOL];
    run(&home.join("bin/pip"), &quiet);
    program
}

/// Runs the tool, within its limit; whether it was content, and what it said.
fn check(url: &str, token: &str, more: &[&str]) -> (bool, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(tool());
    command.args(["run", &format!("{url}/v1/openapi.json"), "--max-examples", EXAMPLES]);
    command.args(["--phases", "examples,coverage,fuzzing", "--seed", "17"]);
    command.args(["--generation-deterministic", "--no-shrink", "--request-timeout", "90"]);
    command.args(["--suppress-health-check", "all", "--no-color", "--max-failures", "10"]);
    command.args(["--header", &format!("Authorization: Bearer {token}")]);
    command.args(more);
    // What it remembers of earlier runs would make it another test each time.
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("schemathesis.toml"), KNOWN).unwrap();
    command.current_dir(home.path()).stdin(Stdio::null());
    let mut child =
        command.stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let said = String::from_utf8_lossy(&std::fs::read(log.path()).unwrap()).into_owned();
    let end = if status.is_none() { "\nit did not end in time" } else { "" };
    (status.is_some_and(|status| status.success()), said + end)
}

#[test]
fn guest_host_answers_whatever_is_asked_as_it_describes_itself() {
    let host = Host::up(IDLE);
    let (_, link) = host.json(&["open"]);
    let url = link["url"].as_str().unwrap().split("/#").next().unwrap().to_owned();
    let (_, token) = host.json(&["api", "token", "--role", "administrator"]);
    let token = token["token"].as_str().unwrap();
    // Streams have no end, connections of guests are no HTTP, the host is to live, and
    // the tool would take its own token back.
    let (content, said) = check(
        &url,
        token,
        &[
            "--exclude-path-regex",
            "^/v1/(events|down|tokens/.*|partitions/[^/]*/(console|exec|attach))$",
        ],
    );
    assert!(content, "{said}");
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    let tested: u32 = tested.and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(tested >= 25, "most of it was not tried: {said}");
    let (_, status) = host.json(&["status"]);
    assert!(status["partitions"].is_array(), "{status}");
}
