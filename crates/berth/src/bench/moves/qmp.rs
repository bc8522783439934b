//! As much of QEMU's machine protocol as a migration takes.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long QEMU may take to make its socket, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why QEMU did not answer; it is to blame, or the host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("no connection to QEMU's monitor")]
    Connection(#[from] io::Error),
    #[error("QEMU's monitor ended")]
    Ended,
    #[error("QEMU's monitor says something else than JSON")]
    Form(#[from] serde_json::Error),
    #[error("QEMU refuses {command}: {reason}")]
    Refused { command: String, reason: String },
}

/// A connection to a monitor that takes commands.
pub(crate) struct Monitor {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects as soon as QEMU listens on `path`.
    pub(crate) fn connect(path: &Path) -> Result<Self, QmpError> {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let lines = BufReader::new(stream.try_clone()?);
        let mut monitor = Self { stream, lines };
        monitor.message()?;
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Carries a command out; what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes())?;
        loop {
            if let Some(answer) = answer(command, &self.message()?) {
                return answer;
            }
        }
    }

    fn message(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(QmpError::Ended);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// What a message says of a command; events say nothing.
fn answer(command: &str, message: &Value) -> Option<Result<Value, QmpError>> {
    if let Some(value) = message.get("return") {
        return Some(Ok(value.clone()));
    }
    let reason = message.get("error")?["desc"].as_str().unwrap_or("no reason").to_owned();
    Some(Err(QmpError::Refused { command: command.to_owned(), reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_between_are_passed_over_and_refusals_name_the_command() {
        assert!(answer("stop", &json!({"event": "STOP", "data": {}})).is_none());
        let Some(Ok(value)) = answer("stop", &json!({"return": {"a": 1}})) else { panic!() };
        assert_eq!(value["a"], 1);
        let refused = answer("stop", &json!({"error": {"class": "x", "desc": "no"}}));
        assert_eq!(refused.unwrap().unwrap_err().to_string(), "QEMU refuses stop: no");
    }
}
