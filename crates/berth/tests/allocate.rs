//! `berth allocate` with a gateway of the test's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use support::{Host, host, limits, principal};

fn command(host: &Host, program: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    // The socket in the state directory is found by itself.
    command.env("BERTH_STATE_DIR", host.dir.path());
    command.args(["allocate", &format!("test/{program}")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that is refused reads nothing.
        scope.spawn(move || stdin.write_all(input).is_ok());
        child.wait_with_output().unwrap()
    })
}

#[test]
fn input_goes_there_and_output_comes_back_whole() {
    let host = host(limits());
    let input: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let output = run(command(&host, "echo").args(["--user", "alice"]), &input);
    assert_eq!(output.status.code(), Some(0), "{:?}", output.stderr);
    assert!(output.stdout == input);
    let output = run(command(&host, "count").args(["--user", "alice", "--sync", "none"]), &input);
    assert_eq!(output.stdout, b"3000000\n");
}

#[test]
fn a_dialogue_goes_to_and_fro() {
    let host = host(limits());
    let mut child = command(&host, "echo").args(["--user", "alice"]).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in ["first\n", "second\n", "third\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let mut back = vec![0; line.len()];
        output.read_exact(&mut back).unwrap();
        assert_eq!(back, line.as_bytes());
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn each_end_has_its_exit_status() {
    let host = host(limits());
    for (program, status) in
        [("busy", 75), ("never", 69), ("fails", 70), ("dies", 70), ("lost", 75)]
    {
        let output = run(command(&host, program).args(["--user", "alice"]), b"hello");
        assert_eq!(output.status.code(), Some(status), "{program}");
        assert!(output.stderr.starts_with(b"berth: "), "{program}");
    }
    let output = run(command(&host, "echo").args(["--user", "eve"]), b"");
    assert_eq!(output.status.code(), Some(77));
    let output = run(command(&host, "echo").args(["--socket", "/nowhere"]), b"");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn over_the_network_with_a_password_and_parameters() {
    let host = host(limits());
    let password = host.dir.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let gateway = format!("localhost:{}", host.running.address().unwrap().port());
    let mut command = command(&host, "echo");
    command.args(["--user", "alice", "--host", &gateway, "--json"]);
    command.arg("--ca").arg(host.dir.path().join("gateway.crt"));
    command.arg("--password-file").arg(password).args(["--", "-v", "x y"]);
    let output = run(&mut command, b"hello");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["result"], &said["output"]), (&"confirmed".into(), &"hello".into()));
    let attached = host.attached();
    assert_eq!(attached.principal, Some(principal("alice")));
    assert_eq!(attached.pip, Some(vec![b"-v".to_vec(), b"x y".to_vec()]));
}
