//! The programs that run in the guest: their sources are part of Berth and
//! compiled with the distribution's compiler.

use std::fs;
use std::path::{Path, PathBuf};

use crate::digest::parts_digest;
use crate::error::{At, BuildError};
use crate::process::run;
use crate::tools::Tools;

/// Path (`crate/file`) and text of every source file.
const SOURCES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/guest_sources.rs"));

/// Raised when the way of compiling changes.
const VERSION: &str = "1";

/// A program of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestProgram {
    /// The agent: the guest's first process.
    Agent,
    /// The benchmark that runs in place of the agent.
    Bench,
}

impl GuestProgram {
    fn source(self) -> &'static str {
        match self {
            Self::Agent => "agent/main.rs",
            Self::Bench => "agent/bin/guest_bench.rs",
        }
    }
}

/// Digest of all guest sources.
pub(crate) fn sources_digest() -> String {
    parts_digest(
        [VERSION].into_iter().chain(SOURCES.iter().flat_map(|(path, text)| [*path, *text])),
    )
}

/// Compiles `program` and gives the cached binary's path.
pub(crate) fn compile(
    program: GuestProgram,
    tools: &Tools,
    cache: &Path,
) -> Result<PathBuf, BuildError> {
    let source = program.source();
    if !SOURCES.iter().any(|(path, _)| *path == source) {
        return Err(BuildError::Content(format!("this build of Berth holds no {source}")));
    }
    let programs = cache.join("programs");
    fs::create_dir_all(&programs).at(&programs)?;
    let name = parts_digest([source, tools.suite(), &sources_digest()]);
    let finished = programs.join(&name);
    if finished.is_file() {
        return Ok(finished);
    }
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(&programs).at(&programs)?;
    for (path, text) in SOURCES {
        let file = work.path().join(path);
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).at(dir)?;
        }
        fs::write(&file, text).at(&file)?;
    }
    let linker = tools.write_linker(work.path())?;
    let rustc = || -> Result<_, BuildError> {
        let mut rustc = tools.command("rustc")?;
        rustc.current_dir(work.path()).arg("--sysroot").arg(tools.root().join("usr"));
        rustc.args([
            "--edition",
            "2024",
            "--target",
            "riscv64gc-unknown-linux-gnu",
            "--cap-lints",
            "allow",
        ]);
        rustc.args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "codegen-units=1"]);
        rustc.args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
        rustc.env_remove("RUSTFLAGS").env("TMPDIR", work.path());
        Ok(rustc)
    };
    run(
        rustc()?.args([
            "--crate-type",
            "rlib",
            "--crate-name",
            "agent_protocol",
            "agent_protocol/lib.rs",
        ]),
        work.path(),
    )?;
    let binary = work.path().join("program");
    run(
        rustc()?
            .args(["--crate-name", "program", "--extern", "agent_protocol=libagent_protocol.rlib"])
            .args(["-C", "linker-flavor=ld", "-C", "strip=symbols", "-o"])
            .arg(&binary)
            .arg(format!("-Clinker={}", linker.display()))
            .arg(source),
        work.path(),
    )?;
    fs::rename(&binary, &finished).at(&finished)?;
    Ok(finished)
}
