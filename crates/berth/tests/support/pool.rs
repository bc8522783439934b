//! Conversations with the machines of a pool, as users have them.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Host;

/// A conversation of `berth allocate` that goes on.
pub struct Conversation {
    pub client: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Conversation {
    pub fn begin(host: &Host, user: &str) -> Self {
        Self::with(host, "serve/shell", user)
    }

    pub fn with(host: &Host, program: &str, user: &str) -> Self {
        Self::by(&mut host.command(&["allocate", program, "--user", user]))
    }

    /// Of a user who proves it by the token in a file.
    pub fn with_token(host: &Host, program: &str, user: &str, token: &str) -> Self {
        let arguments = ["allocate", program, "--user", user, "--token-file", token];
        Self::by(&mut host.command(&arguments))
    }

    fn by(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let (input, output) = (client.stdin.take(), client.stdout.take().unwrap());
        Self { client, input, output: BufReader::new(output) }
    }

    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The answer to a line of shell that prints one line.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Ends it in order, or as the program does; the exit code.
    pub fn end(mut self) -> i32 {
        drop(self.input.take());
        let output = self.client.wait_with_output().unwrap();
        output.status.code().unwrap_or(-1)
    }
}

pub fn members(host: &Host) -> Vec<Value> {
    let (_, status) = host.json(&["pool", "status"]);
    status["pools"][0]["members"].as_array().unwrap().clone()
}

/// Waits until every machine is free.
pub fn all_free(host: &Host) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while members(host).iter().any(|member| member["state"] != "free") {
        assert!(Instant::now() < deadline, "{:?}", members(host));
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn allocate(host: &Host, program: &str, user: &str, input: &str) -> (i32, String) {
    let mut command = host.command(&["allocate", program, "--user", user]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    // One that is refused does not read.
    let _ = client.stdin.take().unwrap().write_all(input.as_bytes());
    let output = client.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
}
