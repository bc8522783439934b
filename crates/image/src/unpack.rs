//! Unpacking packages as an ordinary user, without running what they hold.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::apt::{Apt, Package};
use crate::error::{At, BuildError};
use crate::process::{command, complaint};
use crate::progress::Progress;

/// What no guest and no tool reads.
const NEVER: [&str; 8] = [
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/info",
    "./usr/share/locale",
    "./usr/share/lintian",
    "./usr/share/bug",
    "./usr/share/doc-base",
    "./usr/share/gcc",
];

/// Unpacks one `.deb` into `into`; `only` narrows it to some paths.
pub(crate) fn unpack(deb: &Path, into: &Path, only: &[&str]) -> Result<(), BuildError> {
    let fault = |error: std::io::Error| BuildError::io(deb, error);
    let mut reader = command("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fault)?;
    let mut tar = command("tar");
    tar.args(["-x", "--keep-directory-symlink", "--no-same-owner", "--no-same-permissions", "-C"]);
    tar.arg(into);
    for path in NEVER {
        tar.arg(format!("--exclude={path}"));
    }
    tar.arg("--wildcards").args(only);
    if let Some(pipe) = reader.stdout.take() {
        tar.stdin(pipe);
    }
    let written = tar.output().map_err(fault)?;
    let read = reader.wait().map_err(fault)?;
    let complaints = String::from_utf8_lossy(&written.stderr);
    // Not every package has every path of `only`.
    let absent = !only.is_empty() && complaints.contains("Not found in archive");
    if !(written.status.success() || absent) {
        return Err(complaint("tar", &complaints, into));
    }
    if !read.success() && written.status.success() {
        return Err(BuildError::Download(format!("{} cannot be unpacked", deb.display())));
    }
    Ok(())
}

/// Makes `/bin` and its like the links they are in every Debian system, then
/// unpacks `packages`.
pub(crate) fn unpack_all(
    apt: &Apt,
    packages: &[Package],
    into: &Path,
    progress: &dyn Progress,
) -> Result<(), BuildError> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = into.join("usr").join(name);
        fs::create_dir_all(&target).at(&target)?;
        let link = into.join(name);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link).at(&link)?;
        }
    }
    for (done, package) in packages.iter().enumerate() {
        progress.advance(done as u64, packages.len() as u64);
        unpack(&apt.deb(package), into, &[])?;
    }
    progress.advance(packages.len() as u64, packages.len() as u64);
    Ok(())
}
