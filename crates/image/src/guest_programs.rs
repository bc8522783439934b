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

/// The main file of the benchmark among [`bench_sources`].
pub const BENCH_SOURCE: &str = "guest_bench/main.rs";

/// Path and text of every source file of the benchmark that guests run.
pub fn bench_sources() -> impl Iterator<Item = (&'static str, &'static str)> {
    GuestProgram::Bench.sources().copied()
}

/// Raised when the way of compiling changes.
const VERSION: &str = "3";

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
            Self::Bench => BENCH_SOURCE,
        }
    }

    /// The directories its sources lie in.
    fn crates(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["agent/", "agent_protocol/"],
            Self::Bench => &["guest_bench/"],
        }
    }

    /// The agent is read at every boot, the benchmark measured.
    fn optimisation(self) -> &'static str {
        match self {
            Self::Agent => "opt-level=2",
            Self::Bench => "opt-level=3",
        }
    }

    fn sources(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        SOURCES
            .iter()
            .filter(move |(path, _)| self.crates().iter().any(|dir| path.starts_with(dir)))
    }

    /// Digest of the program's sources and of how they are compiled.
    pub(crate) fn digest(self) -> String {
        let sources = self.sources().flat_map(|(path, text)| [*path, *text]);
        parts_digest([VERSION].into_iter().chain(sources))
    }
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
    let name = parts_digest([source, tools.suite(), &program.digest()]);
    let finished = programs.join(&name);
    if finished.is_file() {
        return Ok(finished);
    }
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(&programs).at(&programs)?;
    for (path, text) in program.sources() {
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
        rustc.args(["-C", program.optimisation(), "-C", "panic=abort", "-C", "codegen-units=1"]);
        rustc.args(["-C", "target-feature=+crt-static", "-C", "relocation-model=static"]);
        rustc.env_remove("RUSTFLAGS").env("TMPDIR", work.path());
        Ok(rustc)
    };
    if program == GuestProgram::Agent {
        run(
            rustc()?
                .args(["--crate-type", "rlib", "--crate-name", "agent_protocol"])
                .arg("agent_protocol/lib.rs"),
            work.path(),
        )?;
    }
    let binary = work.path().join("program");
    let mut link = rustc()?;
    if program == GuestProgram::Agent {
        link.args(["--extern", "agent_protocol=libagent_protocol.rlib"]);
    }
    link.args(["--crate-name", "program", "-C", "linker-flavor=ld", "-C", "strip=symbols"]);
    link.args(["-C", "lto=fat", "-o"]).arg(&binary);
    link.arg(format!("-Clinker={}", linker.display())).arg(source);
    run(&mut link, work.path())?;
    fs::rename(&binary, &finished).at(&finished)?;
    Ok(finished)
}
