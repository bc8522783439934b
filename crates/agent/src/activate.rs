//! The last step to a service's program: the agent's own program under another
//! name, which becomes it.
//!
//! The listening socket comes as standard input. It becomes descriptor 3, and
//! `LISTEN_PID` this process's number, as sd_listen_fds(3) wants it: between
//! a fork and the program nobody else could say it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::{command, sys};

/// The name.
pub(crate) const NAME: &str = "berth-activate";

/// Status of a program that cannot be started, as shells have it.
const NOT_STARTED: i32 = 127;

/// Becomes the program that the arguments name; returns only if it cannot.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> i32 {
    let Some(program) = arguments.next() else { return NOT_STARTED };
    // Nothing is open here but the standard descriptors.
    if let Err(error) = sys::also_at(3) {
        eprintln!("the service's socket cannot be passed on: {error}");
        return NOT_STARTED;
    }
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null());
    command.env("LISTEN_PID", std::process::id().to_string());
    let error = command.exec();
    eprintln!("{}", command::why_not_started(&program, &error));
    NOT_STARTED
}
