//! The benchmark's programs run natively, where the host has a Rust compiler.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::transcript::Transcript;

/// Why there is no native reference.
#[derive(Debug, thiserror::Error)]
pub(super) enum NativeError {
    #[error("cannot write the benchmark's sources: {0}")]
    Sources(#[source] io::Error),
    #[error("cannot run rustc: {0}")]
    Compiler(#[source] io::Error),
    #[error("rustc refuses the benchmark: {0}")]
    Refused(String),
    #[error("cannot run the benchmark: {0}")]
    Run(#[source] io::Error),
    #[error("the benchmark did not finish")]
    Unfinished,
}

/// Compiles the guest's programs for the host, with the same optimisation, and
/// runs them in a process of this host that is told `words`.
pub(super) fn run(words: &[String]) -> Result<Transcript, NativeError> {
    let dir = tempfile::tempdir().map_err(NativeError::Sources)?;
    for (path, text) in image::bench_sources() {
        let file = dir.path().join(path);
        let folder = file.parent().unwrap_or(dir.path());
        fs::create_dir_all(folder).map_err(NativeError::Sources)?;
        fs::write(&file, text).map_err(NativeError::Sources)?;
    }
    compile(dir.path())?;
    let mut program = Command::new(dir.path().join("program"));
    let mut transcript = Transcript::new(Instant::now());
    let output = program.args(words).stdin(Stdio::null()).output().map_err(NativeError::Run)?;
    transcript.feed(&output.stdout, Instant::now());
    if transcript.done { Ok(transcript) } else { Err(NativeError::Unfinished) }
}

fn compile(dir: &Path) -> Result<(), NativeError> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(dir).stdin(Stdio::null()).env_remove("RUSTFLAGS");
    rustc.args(["--edition", "2024", "--cap-lints", "allow", "--crate-name", "program"]);
    rustc.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1"]);
    rustc.args(["-o", "program", image::BENCH_SOURCE]);
    let output = rustc.output().map_err(NativeError::Compiler)?;
    if output.status.success() {
        return Ok(());
    }
    let complaints = String::from_utf8_lossy(&output.stderr);
    Err(NativeError::Refused(complaints.chars().take(400).collect()))
}
