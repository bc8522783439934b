//! An agent of the test's own, and the host it talks to.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use agent_protocol::{Decoder, ExecRequest, Message, Status, StreamId};

pub struct Agent {
    child: Child,
    /// What it shows to programs.
    pub directory: PathBuf,
    stream: UnixStream,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Agent {
    pub fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("berth-agent-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_agent"))
            .env("BERTH_AGENT_DIRECTORY", &directory)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let (stream, decoder, unread) = (ours, Decoder::new(), Vec::new());
        let mut agent = Self { child, directory, stream, decoder, unread };
        assert!(matches!(agent.next(), (0, Message::Ready(_))));
        agent
    }

    pub fn say(&mut self, stream: StreamId, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(stream, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn exec(&mut self, stream: StreamId, argv: &[&str]) {
        self.say(stream, &Message::Exec(ExecRequest::new(argv)));
    }

    pub fn sh(&mut self, stream: StreamId, script: &str) {
        self.exec(stream, &["sh", "-c", script]);
    }

    pub fn next(&mut self) -> (StreamId, Message) {
        loop {
            let mut left = &self.unread[..];
            let found = self.decoder.next(&mut left).unwrap();
            self.unread = left.to_vec();
            if let Some(message) = found {
                return message;
            }
            let mut buffer = [0; 65536];
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the agent is gone");
            self.unread.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads until `stream` ends, giving back credit; outputs and last word.
    pub fn finish(&mut self, stream: StreamId) -> (Vec<u8>, Vec<u8>, Message) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            let (from, message) = self.next();
            let cost = message.cost() as u32;
            if cost > 0 {
                self.say(from, &Message::Credit(cost));
            }
            match message {
                _ if from != stream => {}
                Message::Stdout(bytes) => out.extend(bytes),
                Message::Stderr(bytes) => err.extend(bytes),
                Message::Credit(_) => {}
                last => return (out, err, last),
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let status = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
        assert!(std::thread::panicking() || status.unwrap().success());
    }
}

/// The last word of a command with this code.
pub fn exited(code: u8) -> Message {
    Message::Exited(Status::Code(code))
}
