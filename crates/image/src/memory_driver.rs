//! The guest's driver for memory that comes and goes (`virtio_mem`).
//!
//! The distribution's riscv64 kernels have its source but are built without
//! it. So it is compiled here: the one file of the kernel's source, against the
//! kernel's own headers, by its own build system, with the distribution's
//! compiler. All of that is large and of no further use, so what stays in the
//! cache is the one file and the finished module, which lies among the
//! kernel's others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::apt::{Apt, Keep, Package, Plan};
use crate::error::{At, BuildError};
use crate::kernel::Kernel;
use crate::modules::depends;
use crate::process::{command, run};
use crate::progress::{Phase, Progress};
use crate::tools::{Runner, Tools};
use crate::unpack::{unpack, unpack_all};

/// The module's name.
const NAME: &str = "virtio_mem";
/// The kernel's build system, and how what belongs to it is named.
const KBUILD: &str = "linux-kbuild-";
const CROSS: &str = "riscv64-linux-gnu";
/// The guest's architecture.
const GUEST: &str = "riscv64";

/// What the compiler and the build system name as dependencies and a kernel
/// module needs nothing of.
const WITHOUT: [&str; 11] = [
    "*-cross",
    "*-cross-base",
    "gcc-*-base",
    "libcc1-0",
    "libc-gconv*",
    "pahole",
    "libdwarves1",
    "libbpf1",
    "libdw1*",
    "libssl*",
    "openssl*",
];

/// What the operator is told when there will be no driver because of `error`.
pub(crate) fn notice(error: &BuildError) -> String {
    format!(
        "going on without the guest's memory driver: guests of this image keep the memory they \
         boot with and cannot be expanded while they run. The driver is compiled from about \
         250 MB of packages (kernel source and headers, a compiler), once for each kernel; build \
         the image again when they can be had. The reason: {error}"
    )
}

/// Puts the driver among the modules of `kernel` if it is not there.
pub(crate) fn obtain(
    cache: &Path,
    apt: &Apt,
    architecture: &str,
    kernel: &Kernel,
    tools: &Tools,
    progress: &dyn Progress,
) -> Result<(), BuildError> {
    if kernel.has_memory_driver() {
        return Ok(());
    }
    let release = kernel.release()?;
    let headers =
        apt.plan(GUEST, &[&format!("linux-headers-{release}")], &Keep::Only(&["linux-headers-*"]))?;
    let kernels = cache.join("kernels");
    let staging =
        tempfile::Builder::new().prefix(".building-").tempdir_in(&kernels).at(&kernels)?;
    let tree = staging.path().join("tree");
    fs::create_dir(&tree).at(&tree)?;
    apt.download(&headers, progress)?;
    for package in &headers.packages {
        unpack(&apt.deb(package), &tree, &[])?;
    }
    let at = tree.join("usr/src").join(format!("linux-headers-{release}"));
    let compiler = compiler(&at)?;
    let host = host_plan(apt, architecture, &release, &compiler)?;
    apt.download(&host, progress)?;
    progress.phase(Phase::MemoryDriver);
    unpack_all(apt, &host.packages, &tree, progress)?;
    let build =
        Build { dir: staging.path(), tree: &tree, runner: Runner::new(&tree, architecture)? };
    build.write_wrappers(&compiler)?;
    let source = source(cache, apt, architecture, &release, &build, progress)?;
    let module = build.module(&at, &source)?;
    tools.strip_module(&module)?;
    let bytes = fs::read(&module).at(&module)?;
    if depends(&bytes).is_none_or(|needs| !needs.is_empty()) {
        let reason = "the memory driver needs modules besides itself";
        return Err(BuildError::Content(reason.to_owned()));
    }
    kernel.add_memory_driver(NAME, &module)?;
    for package in headers.packages.iter().chain(&host.packages) {
        let _ = fs::remove_file(apt.deb(package));
    }
    Ok(())
}

/// The compiler the kernel was built with, such as `gcc-14`, as its headers
/// say.
fn compiler(headers: &Path) -> Result<String, BuildError> {
    let file = headers.join(".kernelvariables");
    let text = fs::read_to_string(&file).at(&file)?;
    compiler_in(&text)
        .ok_or_else(|| BuildError::Content("the kernel's headers name no compiler".to_owned()))
}

fn compiler_in(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some("CC"))?;
    let (_, version) = line.rsplit_once("gcc-")?;
    let version = version.trim();
    let plain = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| format!("gcc-{version}"))
}

fn host_plan(
    apt: &Apt,
    architecture: &str,
    release: &str,
    compiler: &str,
) -> Result<Plan, BuildError> {
    let abi = release.strip_suffix("-riscv64").unwrap_or(release);
    let (kbuild, compiler) = (format!("{KBUILD}{abi}"), format!("{compiler}-{CROSS}"));
    let ask = [kbuild.as_str(), compiler.as_str(), "make", "xz-utils"];
    apt.plan(architecture, &ask, &Keep::Except(&WITHOUT))
}

/// The driver's source, from the cache or else from the kernel's.
fn source(
    cache: &Path,
    apt: &Apt,
    architecture: &str,
    release: &str,
    build: &Build<'_>,
    progress: &dyn Progress,
) -> Result<PathBuf, BuildError> {
    let mut numbers = release.split(['.', '+', '-']);
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Err(BuildError::Content(format!("{release} is no kernel release")));
    };
    let name = format!("linux-source-{major}.{minor}");
    let plan = apt.plan(architecture, &[&name], &Keep::Only(&[&name]))?;
    let [package] = plan.packages.as_slice() else {
        return Err(BuildError::Content(format!("apt has not one {name}")));
    };
    let sources = cache.join("sources");
    fs::create_dir_all(&sources).at(&sources)?;
    let finished = sources.join(format!("{NAME}-{}.c", package.sha256));
    if !finished.is_file() {
        apt.download(&plan, progress)?;
        progress.phase(Phase::MemoryDriver);
        let file = build.source(&apt.deb(package), package)?;
        fs::rename(&file, &finished).at(&finished)?;
        let _ = fs::remove_file(apt.deb(package));
    }
    Ok(finished)
}

/// Where the module is compiled.
struct Build<'a> {
    dir: &'a Path,
    /// All packages, unpacked.
    tree: &'a Path,
    runner: Runner,
}

impl Build<'_> {
    fn programs(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Writes a program `at` that runs what `line` begins.
    fn write_wrapper(at: &Path, line: &str) -> Result<(), BuildError> {
        fs::write(at, format!("#!/bin/sh\nexec {line} \"$@\"\n")).at(at)?;
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).at(at)
    }

    /// Makes everything that the kernel's build system calls run through the
    /// tree's own dynamic loader.
    fn write_wrappers(&self, compiler: &str) -> Result<(), BuildError> {
        let (bin, of) = (self.programs(), self.tree.join("usr/bin"));
        fs::create_dir(&bin).at(&bin)?;
        let binutils = ["ar", "as", "ld", "nm", "objcopy", "objdump", "readelf", "strip"]
            .map(|name| format!("{CROSS}-{name}"));
        for name in binutils.iter().map(String::as_str).chain(["make", "xz"]) {
            // By its name `make` calls itself again.
            let at = bin.join(name);
            Self::write_wrapper(&at, &self.runner.shell_line(&of.join(name), &at))?;
        }
        // By its name the compiler finds programs of its own, which need the
        // loader too.
        let name = format!("{CROSS}-{compiler}");
        let line = self.runner.shell_line(&of.join(&name), &of.join(&name));
        let more = self.runner.comma_list();
        Self::write_wrapper(&bin.join(&name), &format!("{line} -wrapper {more}"))?;
        let scripts = self.scripts()?;
        for (name, real) in
            [("basic/fixdep", "basic/fixdep.real"), ("mod/modpost", "mod/modpost.real-lsb-64")]
        {
            let (name, real) = (scripts.join(name), scripts.join(real));
            if !real.exists() {
                fs::rename(&name, &real).at(&name)?;
            }
            // A link would lead back to what is to be run.
            let _ = fs::remove_file(&name);
            Self::write_wrapper(&name, &self.runner.shell_line(&real, &name))?;
        }
        Ok(())
    }

    /// The scripts of the kernel's build system.
    fn scripts(&self) -> Result<PathBuf, BuildError> {
        let lib = self.tree.join("usr/lib");
        let dirs = fs::read_dir(&lib).at(&lib)?.flatten();
        let mut found =
            dirs.filter(|entry| entry.file_name().to_string_lossy().starts_with(KBUILD));
        found.next().map(|entry| entry.path().join("scripts")).ok_or_else(|| {
            BuildError::Content("the kernel's build system is not where it was".to_owned())
        })
    }

    /// Takes the driver's source out of the kernel's, `deb`.
    fn source(&self, deb: &Path, package: &Package) -> Result<PathBuf, BuildError> {
        let all = self.dir.join("source");
        fs::create_dir(&all).at(&all)?;
        unpack(deb, &all, &["*.tar.xz"])?;
        let archive = all.join("usr/src").join(format!("{}.tar.xz", package.name));
        let mut tar = command("tar");
        tar.arg("-I").arg(self.programs().join("xz")).arg("-xf").arg(&archive).arg("-C").arg(&all);
        tar.args(["--strip-components=3", "--no-same-owner", "--wildcards", "--occurrence=1"]);
        run(tar.arg(format!("*/drivers/virtio/{NAME}.c")), &all)?;
        // A hundred and more megabytes, before the compiler wants its room.
        fs::remove_file(&archive).at(&archive)?;
        Ok(all.join(format!("{NAME}.c")))
    }

    /// Compiles the module.
    fn module(&self, headers: &Path, source: &Path) -> Result<PathBuf, BuildError> {
        let work = self.dir.join("module");
        fs::create_dir(&work).at(&work)?;
        let (file, makefile) = (work.join(format!("{NAME}.c")), work.join("Makefile"));
        fs::copy(source, &file).at(source)?;
        fs::write(&makefile, format!("obj-m := {NAME}.o\n")).at(&makefile)?;
        // The headers know where they would be installed.
        let entry = headers.join("Makefile");
        let text = fs::read_to_string(&entry).at(&entry)?;
        let here = format!("{}/usr/src/", self.tree.display());
        fs::write(&entry, text.replace("/usr/src/", &here)).at(&entry)?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut path_list = self.programs().into_os_string();
        path_list.push(":");
        path_list.push(path);
        let mut make = command(self.programs().join("make"));
        make.env_clear().env("LC_ALL", "C").env("PATH", path_list).env("TMPDIR", self.dir);
        make.arg("-C").arg(headers).arg(format!("M={}", work.display()));
        // The kernel's type information is for debuggers, and its tools large.
        make.args(["CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
        run(&mut make, &work)?;
        Ok(work.join(format!("{NAME}.ko")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_name_their_compiler() {
        let text = "override ARCH = riscv\nCCACHE = ccache\n\
                    CC = $(if $(USE_CCACHE),$(CCACHE)) $(CROSS_COMPILE)gcc-16\n";
        assert_eq!(compiler_in(text).as_deref(), Some("gcc-16"));
        assert_eq!(compiler_in("CC := riscv64-linux-gnu-gcc-14").as_deref(), Some("gcc-14"));
        assert_eq!(compiler_in("CC = clang"), None);
        assert_eq!(compiler_in("CC = gcc-1; rm -rf x"), None);
    }

    #[test]
    fn what_is_missing_and_what_it_costs_is_said() {
        let text = notice(&BuildError::Download("no route".to_owned()));
        for part in ["cannot be expanded", "250 MB", "no route", "build the image again"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
