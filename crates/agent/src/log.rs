//! Words for the operator, in the kernel's log and so on the console.

use std::fs::OpenOptions;
use std::io::Write;

/// Something went as it should.
pub(crate) fn info(text: &str) {
    write("<6>", text);
}

/// Something did not; says what and what to do.
pub(crate) fn error(text: &str) {
    write("<3>", text);
}

/// One write is one record. There is nobody to tell if it fails.
fn write(level: &str, text: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("{level}berth-agent: {text}\n").as_bytes());
    }
}
