//! The Debian package, made as an operator makes it: installed, its service run under
//! systemd, and removed, on a system that a PC of its own is emulated for.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/pc.rs"]
mod pc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pc::{Ram, image, kernel, output, package, system};

const HOST: &str = r#"
[main_storage]
size = "256M"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"
"#;

/// What the shell of the emulated PC's first process calls.
const APPLETS: [&str; 5] = ["sh", "mount", "insmod", "tar", "switch_root"];
const MODULES: [&str; 6] = [
    "virtio/virtio.ko",
    "virtio/virtio_ring.ko",
    "virtio/virtio_pci_legacy_dev.ko",
    "virtio/virtio_pci_modern_dev.ko",
    "virtio/virtio_pci.ko",
    "block/virtio_blk.ko",
];

/// What is tried, as an archive to be laid over the system.
fn trial(directory: &Path, package: &Path) -> PathBuf {
    let over = directory.join("over");
    let (trial, units) = (over.join("trial"), over.join("etc/systemd/system"));
    fs::create_dir_all(&trial).unwrap();
    fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
    fs::write(trial.join("trial"), include_str!("service/trial")).unwrap();
    fs::write(trial.join("host.toml"), HOST).unwrap();
    fs::write(units.join("trial.service"), include_str!("service/trial.service")).unwrap();
    let wanted = units.join("multi-user.target.wants/trial.service");
    std::os::unix::fs::symlink("../trial.service", wanted).unwrap();
    fs::copy(package, trial.join("berth.deb")).unwrap();
    fs::create_dir(trial.join("images")).unwrap();
    output(Command::new("cp").arg("-a").arg(image("minimal")).arg(trial.join("images")));
    let archive = directory.join("over.tar");
    output(
        Command::new("tar")
            .args(["--owner=0", "--group=0", "--mode=u+w,go-w,a+rX", "-cf"])
            .arg(&archive)
            .arg("-C")
            .args([&over, Path::new(".")]),
    );
    archive
}

#[test]
fn guest_package_has_what_belongs_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let package = package(directory.path());
    let about = output(Command::new("dpkg-deb").arg("-f").arg(&package));
    let depends = about.lines().find(|line| line.starts_with("Depends:")).unwrap();
    for name in ["libc6 (>= ", "adduser", "apt"] {
        assert!(depends.contains(name), "{about}");
    }
    let contents = output(Command::new("dpkg-deb").arg("-c").arg(&package));
    for path in [
        "./usr/bin/berth",
        "./lib/systemd/system/berth.service",
        "./usr/share/man/man1/berth.1.gz",
        "./usr/share/man/man1/berth-move.1.gz",
        "./usr/share/bash-completion/completions/berth",
        "./usr/share/zsh/vendor-completions/_berth",
        "./usr/share/fish/vendor_completions.d/berth.fish",
        "./usr/share/doc/berth/docs/operator.md",
        "./usr/share/doc/berth/docs/pictures/console-light.png",
        "./usr/share/doc/berth/examples/berth.toml",
        "./usr/share/doc/berth/examples/grafana/berth.json",
        "./usr/share/doc/berth/copyright",
        "./etc/berth/",
    ] {
        let found = contents.lines().filter(|line| line.ends_with(&format!(" {path}")));
        assert_eq!(found.count(), 1, "{path} in\n{contents}");
    }
    // It is root's, and nobody else may write to it.
    for line in contents.lines() {
        assert!(line.contains(" root/root "), "{line}");
        assert!(matches!(&line[..10], "drwxr-xr-x" | "-rwxr-xr-x" | "-rw-r--r--"), "{line}");
    }
    // The operator writes the host file; no upgrade asks about it.
    let tree = directory.path().join("control");
    output(Command::new("dpkg-deb").arg("-e").args([&package, &tree]));
    assert!(!tree.join("conffiles").exists());
}

#[test]
fn guest_outlives_its_service_and_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (kernel, system) = (kernel(), system());
    let over = trial(directory.path(), &package(directory.path()));
    let ram = Ram::new(include_str!("service/init"), &APPLETS);
    ram.modules(&kernel, &MODULES);
    let drive = |path: &Path| {
        format!(
            "file={},format=raw,if=virtio,readonly=on",
            path.display().to_string().replace(',', ",,")
        )
    };
    let (system, over) = (drive(&system), drive(&over));
    let pc = ["-machine", "pc", "-m", "3G", "-drive", &system, "-drive", &over];
    let said = ram.run(&kernel, &pc, Duration::from_secs(540));
    said.row("the end");
    let is = |start: &str, wanted: &str| {
        assert!(said.row(start).contains(wanted), "{start}: {wanted}\n{}", said.0);
    };

    // Installed, it waits for the operator.
    is("0 apt-get install", "Setting up berth");
    is("1 systemctl is-enabled berth", "disabled");
    is("3 systemctl is-active berth", "inactive");
    // It starts, says so to systemd, and can be asked.
    is("0 systemctl enable --now berth", "Created symlink");
    is("0 systemctl is-active berth", ": active");
    said.row("0 as_berth berth status");
    is("0 as_berth berth move a --to 64M", "moved");
    is("0 as_berth berth doctor", "1 of 1 partitions run");
    // Locked up as the unit says.
    is("0 grep -E", "CapEff: 0000000000000000 NoNewPrivs: 1");
    assert_eq!(said.row("2 ls -d").matches("No such file").count(), 2, "{}", said.0);
    is("1 touch", "Read-only file system");
    is("0 systemd-analyze security", "OK");
    // Killed, it comes back to its guest; restarted, the guest begins anew; stopped,
    // nothing is left.
    is("0 systemctl show --value -p NRestarts berth", ": 1");
    let boots = said.rows("0 as_berth berth exec a -- cat");
    let [first, killed, restarted] = boots[..] else { panic!("{}", said.0) };
    assert_eq!(first, killed, "{}", said.0);
    assert_ne!(first, restarted, "{}", said.0);
    said.row("0 systemctl restart berth");
    said.row("0 systemctl stop berth");
    assert_eq!(said.rows("1 pgrep -l -u berth :").len(), 2, "{}", said.0);
    is("0 journalctl --no-pager -o cat -u berth", "Stopped berth.service");
    // Removed, it ends first and takes what guests wrote.
    is("0 apt-get purge", "Purging configuration files for berth");
    is("0 systemctl show --value -p LoadState berth", "not-found");
    let left = said.row("0 find / -xdev");
    assert!(left.ends_with(": /etc/berth /etc/berth/berth.toml"), "{left}");
    assert!(said.row("0 systemctl --failed").ends_with(" :"), "{}", said.0);
}
