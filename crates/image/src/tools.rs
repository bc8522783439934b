//! Tools of the distribution, unpacked into the cache and run through the
//! dynamic loader that lies beside them: no root, nothing installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::{Apt, Keep};
use crate::digest::parts_digest;
use crate::error::{At, BuildError};
use crate::process::{command, run};
use crate::progress::{Phase, Progress};
use crate::unpack::unpack_all;

/// Raised when the set of tools below changes.
const VERSION: &str = "2";

const HOST: [&str; 7] = [
    "rustc",
    "binutils-riscv64-linux-gnu",
    "squashfs-tools",
    "e2fsprogs",
    "busybox-static",
    "python3-minimal",
    "libpython3-stdlib",
];

/// What rustc and the others name as dependencies and never use here: the
/// host's own C compiler and what Python does without.
const HOST_WITHOUT: [&str; 47] = [
    "gcc",
    "gcc-*",
    "cpp",
    "cpp-*",
    "libgcc-*-dev",
    "libc6-dev",
    "libc-dev-bin",
    "libcrypt-dev",
    "linux-libc-dev",
    "rpcsvc-proto",
    "libcc1-0",
    "libisl*",
    "libmpc*",
    "libmpfr*",
    "libgmp*",
    "libasan*",
    "libtsan*",
    "liblsan*",
    "libubsan*",
    "libhwasan*",
    "libitm1",
    "libgomp1",
    "libquadmath0",
    "libatomic1",
    "binutils",
    "binutils-*-linux-gnu",
    "libgprofng0",
    "libstd-rust-dev",
    "tzdata",
    "debconf",
    "media-types",
    "netbase",
    "libssl*",
    "openssl*",
    "libdb5*",
    "readline-common",
    "libreadline*",
    "libc-gconv*",
    "libsqlite3*",
    "perl*",
    "dpkg",
    "tar",
    "manpages*",
    "libperl*",
    "libnsl*",
    "libtirpc*",
    "logsave",
];

const GUEST: [&str; 3] = ["libstd-rust-dev", "libc6-dev", "libgcc-14-dev"];

/// Runs programs of an unpacked tree through the dynamic loader in it.
pub(crate) struct Runner {
    root: PathBuf,
    triplet: &'static str,
    loader: &'static str,
}

/// The unpacked tools.
pub(crate) struct Tools {
    runner: Runner,
    suite: String,
}

/// Debian's name of the host's architecture.
pub(crate) fn host_architecture() -> Result<String, BuildError> {
    let text = run(command("dpkg").arg("--print-architecture"), Path::new("/"))?;
    Ok(text.trim().to_owned())
}

fn loader_of(architecture: &str) -> Result<(&'static str, &'static str), BuildError> {
    match architecture {
        "amd64" => Ok(("x86_64-linux-gnu", "ld-linux-x86-64.so.2")),
        "arm64" => Ok(("aarch64-linux-gnu", "ld-linux-aarch64.so.1")),
        "riscv64" => Ok(("riscv64-linux-gnu", "ld-linux-riscv64-lp64d.so.1")),
        other => Err(BuildError::HostArchitecture(other.to_owned())),
    }
}

/// Removes the large parts of the packages that nothing here uses.
fn remove_surplus(root: &Path) {
    let gcc = root.join("usr/lib/gcc/riscv64-linux-gnu/14");
    for library in ["asan", "hwasan", "tsan", "lsan", "ubsan", "gomp", "itm"] {
        let _ = fs::remove_file(gcc.join(format!("lib{library}.a")));
    }
    let _ = fs::remove_file(root.join("usr/bin/rustdoc"));
    let _ = fs::remove_dir_all(root.join("usr/include"));
}

impl Runner {
    /// Programs for `architecture` under `root`, which holds `usr`.
    pub(crate) fn new(root: &Path, architecture: &str) -> Result<Self, BuildError> {
        let (triplet, loader) = loader_of(architecture)?;
        Ok(Self { root: root.to_path_buf(), triplet, loader })
    }

    fn library_path(&self) -> String {
        let lib = self.root.join("usr/lib");
        format!("{}:{}", lib.join(self.triplet).display(), lib.display())
    }

    fn loader(&self) -> PathBuf {
        self.root.join("usr/lib").join(self.triplet).join(self.loader)
    }

    /// The start of a shell's line that runs `program`, which is told that its
    /// name is `name`; its arguments follow.
    pub(crate) fn shell_line(&self, program: &Path, name: &Path) -> String {
        let (loader, libraries) = (self.loader(), self.library_path());
        let (loader, name, program) = (loader.display(), name.display(), program.display());
        format!("'{loader}' --argv0 '{name}' --library-path '{libraries}' '{program}'")
    }

    /// The words before a program that gcc is to call itself, as its option
    /// `-wrapper` wants them.
    pub(crate) fn comma_list(&self) -> String {
        format!("'{},--library-path,{}'", self.loader().display(), self.library_path())
    }
}

impl Tools {
    fn stamp(cache: &Path, suite: &str) -> PathBuf {
        cache.join("tools").join(format!("{suite}.complete"))
    }

    fn at(root: PathBuf, suite: &str, architecture: &str) -> Result<Self, BuildError> {
        Ok(Self { runner: Runner::new(&root, architecture)?, suite: suite.to_owned() })
    }

    /// The tools already unpacked for `suite`, if they are complete.
    pub(crate) fn cached(
        cache: &Path,
        suite: &str,
        architecture: &str,
    ) -> Result<Option<Self>, BuildError> {
        let digest = fs::read_to_string(Self::stamp(cache, suite)).unwrap_or_default();
        let root = cache.join("tools").join(digest.trim());
        if digest.is_empty() || !root.is_dir() {
            return Ok(None);
        }
        Self::at(root, suite, architecture).map(Some)
    }

    /// Downloads and unpacks the tools of `apt`'s suite where they are not
    /// there in the index's present versions; older ones are removed.
    pub(crate) fn obtain(
        cache: &Path,
        apt: &Apt,
        architecture: &str,
        progress: &dyn Progress,
    ) -> Result<Self, BuildError> {
        let host = apt.plan(architecture, &HOST, &Keep::Except(&HOST_WITHOUT))?;
        let guest = apt.plan("riscv64", &GUEST, &Keep::Only(&GUEST))?;
        let files =
            host.packages.iter().chain(&guest.packages).map(|package| package.sha256.as_str());
        let name = format!("{}-{}", apt.suite(), parts_digest([VERSION].into_iter().chain(files)));
        let dir = cache.join("tools");
        let root = dir.join(&name);
        let stamp = Self::stamp(cache, apt.suite());
        if root.is_dir() {
            fs::write(&stamp, &name).at(&stamp)?;
            return Self::at(root, apt.suite(), architecture);
        }
        apt.download(&host, progress)?;
        apt.download(&guest, progress)?;
        progress.phase(Phase::Tools);
        fs::create_dir_all(&dir).at(&dir)?;
        let staging = tempfile::Builder::new().prefix(".building-").tempdir_in(&dir).at(&dir)?;
        unpack_all(apt, &host.packages, staging.path(), progress)?;
        unpack_all(apt, &guest.packages, staging.path(), progress)?;
        remove_surplus(staging.path());
        let tools = Self::at(staging.path().to_path_buf(), apt.suite(), architecture)?;
        tools.check()?;
        let staging = staging.keep();
        fs::rename(&staging, &root).at(&root)?;
        fs::write(&stamp, &name).at(&stamp)?;
        Self::remove_older(&dir, apt.suite(), &name)?;
        // The compiler's packages are the bulk of the cache and done with.
        for package in host.packages.iter().chain(&guest.packages) {
            let _ = fs::remove_file(apt.deb(package));
        }
        Self::at(root, apt.suite(), architecture)
    }

    fn remove_older(dir: &Path, suite: &str, kept: &str) -> Result<(), BuildError> {
        for entry in fs::read_dir(dir).at(dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && name.starts_with(&format!("{suite}-")) && name != kept {
                fs::remove_dir_all(entry.path()).at(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The suite the tools come from.
    pub(crate) fn suite(&self) -> &str {
        &self.suite
    }

    /// The directory holding `usr`.
    pub(crate) fn root(&self) -> &Path {
        &self.runner.root
    }

    fn program(&self, name: &str) -> Result<PathBuf, BuildError> {
        ["usr/bin", "usr/sbin"]
            .iter()
            .map(|dir| self.root().join(dir).join(name))
            .find(|path| path.exists())
            .ok_or_else(|| BuildError::Content(format!("the tools' packages hold no {name}")))
    }

    /// A command that runs the tool `name`.
    pub(crate) fn command(&self, name: &str) -> Result<Command, BuildError> {
        let program = self.program(name)?;
        let mut command = command(self.runner.loader());
        let libraries = self.runner.library_path();
        command.args(["--argv0", name, "--library-path", &libraries]).arg(program);
        command.env("MKE2FS_CONFIG", self.root().join("etc/mke2fs.conf"));
        command.env("PYTHONHOME", self.root().join("usr"));
        Ok(command)
    }

    /// Takes symbols and type information out of a kernel module: nine tenths
    /// of what a guest would have to read at every boot.
    pub(crate) fn strip_module(&self, module: &Path) -> Result<(), BuildError> {
        let mut strip = self.command("riscv64-linux-gnu-strip")?;
        strip.args(["--strip-unneeded", "-R", ".BTF", "-R", ".BTF.base"]).arg(module);
        run(&mut strip, module).map(drop)
    }

    /// Runs every tool once, so that an incomplete set is never published.
    fn check(&self) -> Result<(), BuildError> {
        for (name, argument) in [
            ("rustc", "-V"),
            ("riscv64-linux-gnu-ld", "--version"),
            ("riscv64-linux-gnu-strip", "--version"),
            ("mke2fs", "-V"),
            ("python3", "-V"),
        ] {
            run(self.command(name)?.arg(argument), self.root())?;
        }
        self.program("mksquashfs").map(drop)
    }

    fn guest_libraries(&self) -> Result<(PathBuf, PathBuf), BuildError> {
        let libc = self.root().join("usr/lib/riscv64-linux-gnu");
        let gcc = self.root().join("usr/lib/gcc/riscv64-linux-gnu/14");
        if libc.join("crt1.o").exists() && gcc.join("crtbeginT.o").exists() {
            return Ok((libc, gcc));
        }
        Err(BuildError::Content("the guest's C library has no start-up code".to_owned()))
    }

    /// Writes the linker rustc is to call: the start-up code must stand
    /// before everything else, or the linker takes another from the C library.
    pub(crate) fn write_linker(&self, dir: &Path) -> Result<PathBuf, BuildError> {
        let (libc, gcc) = self.guest_libraries()?;
        let (libc, gcc) = (libc.display(), gcc.display());
        let script = format!(
            "#!/bin/sh\nexec '{}' --library-path '{}' '{}' -m elf64lriscv -static -L'{libc}' -L'{gcc}' \
             '{libc}/crt1.o' '{libc}/crti.o' '{gcc}/crtbeginT.o' \"$@\" \
             --start-group -lgcc -lgcc_eh -lc --end-group '{gcc}/crtend.o' '{libc}/crtn.o'\n",
            self.runner.loader().display(),
            self.runner.library_path(),
            self.program("riscv64-linux-gnu-ld")?.display(),
        );
        let path = dir.join("linker");
        fs::write(&path, script).at(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at(&path)?;
        Ok(path)
    }
}
