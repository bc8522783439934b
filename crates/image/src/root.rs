//! The guest's root file system and its data disk's template.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::apt::{Apt, Package};
use crate::error::{At, BuildError};
use crate::process::run;
use crate::progress::{Phase, Progress};
use crate::recipe::Recipe;
use crate::tools::Tools;
use crate::unpack::unpack_all;

/// Size of the data disk's template, bytes. The file is sparse.
const SCRATCH_SIZE: u64 = 256 << 20;

/// Where something is mounted or written at run time.
const MOUNT_POINTS: [&str; 12] = [
    "proc", "sys", "dev", "run", "tmp", "data", "mnt", "root", "home", "var/tmp", "var/log", "etc",
];

/// What packages bring along and a guest without package manager never reads.
const SURPLUS: [&str; 7] = [
    "usr/share/python3/runtime.d",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/initramfs-tools",
    "usr/share/debconf",
    "usr/lib/systemd",
    "var/lib/dpkg",
];

/// Assembles the root from `packages` and writes it to `to` as squashfs.
pub(crate) fn write_root(
    recipe: &Recipe,
    apt: &Apt,
    packages: &[Package],
    tools: &Tools,
    to: &Path,
    progress: &dyn Progress,
) -> Result<(), BuildError> {
    progress.phase(Phase::Root);
    let parent = to.parent().unwrap_or(to);
    let tree = tempfile::Builder::new().prefix(".root-").tempdir_in(parent).at(parent)?;
    unpack_all(apt, packages, tree.path(), progress)?;
    for surplus in SURPLUS {
        let _ = fs::remove_dir_all(tree.path().join(surplus));
    }
    for dir in MOUNT_POINTS {
        let dir = tree.path().join(dir);
        fs::create_dir_all(&dir).at(&dir)?;
    }
    write_settings(tree.path(), apt.suite())?;
    if recipe.busybox_links {
        link_busybox(tree.path(), tools)?;
    }
    if recipe.compile_python {
        compile_python(tree.path(), tools)?;
    }
    let mut mksquashfs = tools.command("mksquashfs")?;
    mksquashfs.arg(tree.path()).arg(to);
    mksquashfs.args(["-noappend", "-all-root", "-no-xattrs", "-quiet", "-no-progress"]);
    // The host's page cache holds the file; what decompressing would save in
    // reading, the guest would pay in instructions.
    mksquashfs.args(["-noI", "-noD", "-noF", "-mkfs-time", "0", "-all-time", "0"]);
    for (dir, mode) in [("tmp", "1777"), ("var/tmp", "1777"), ("root", "700")] {
        mksquashfs.args(["-p", &format!("{dir} m {mode} 0 0")]);
    }
    run(&mut mksquashfs, parent).map(drop)
}

fn write_settings(tree: &Path, suite: &str) -> Result<(), BuildError> {
    let release = format!(
        "PRETTY_NAME=\"Debian GNU/Linux ({suite}) guest of Berth\"\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_CODENAME={suite}\n"
    );
    for (file, text) in [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        ),
        ("group", "root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n"),
        ("hostname", "berth\n"),
        ("hosts", "127.0.0.1 localhost berth\n::1 localhost\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("resolv.conf", ""),
        ("os-release", release.as_str()),
    ] {
        let file = tree.join("etc").join(file);
        fs::write(&file, text).at(&file)?;
    }
    Ok(())
}

/// Links every applet that the host's busybox of the same suite names: the
/// guest's own cannot be run here.
fn link_busybox(tree: &Path, tools: &Tools) -> Result<(), BuildError> {
    let busybox = tools.root().join("usr/bin/busybox");
    let applets = run(crate::process::command(busybox).arg("--list"), tree)?;
    for applet in applets.lines().filter(|name| !name.contains('/') && !name.is_empty()) {
        let taken = ["usr/bin", "usr/sbin"]
            .iter()
            .any(|dir| tree.join(dir).join(applet).symlink_metadata().is_ok());
        if !taken {
            let link = tree.join("usr/bin").join(applet);
            symlink("busybox", &link).at(&link)?;
        }
    }
    Ok(())
}

/// Compiles Python's library. Unchecked: a guest's files never change under
/// it, and it need not look.
fn compile_python(tree: &Path, tools: &Tools) -> Result<(), BuildError> {
    let library = fs::read_dir(tree.join("usr/lib"))
        .at(tree)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("python3."))
        .ok_or_else(|| BuildError::Content("the image holds no Python library".to_owned()))?;
    let mut python = tools.command(&library)?;
    python.args(["-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    python.arg("-s").arg(tree).args(["-p", "/"]).arg(tree.join("usr/lib").join(&library));
    run(&mut python, tree).map(drop)
}

/// Writes the empty file system that data disks begin as.
pub(crate) fn write_scratch(tools: &Tools, to: &Path) -> Result<(), BuildError> {
    let file = fs::File::create(to).at(to)?;
    file.set_len(SCRATCH_SIZE).at(to)?;
    let mut mke2fs = tools.command("mke2fs")?;
    mke2fs.args(["-F", "-q", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0,nodiscard"]).arg(to);
    run(&mut mke2fs, to.parent().unwrap_or(to)).map(drop)
}
