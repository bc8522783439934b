//! Main storage on a device of the kind devdax, which few machines have: a PC is
//! emulated that has one, and a host of guests runs there.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOST: &str = r#"
[main_storage]
size = "512M"
backing = "file"
path = "/dev/dax0.0"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"

[[partition]]
name = "b"
origin = "128M"
size = "112M"
image = "minimal"
"#;

/// What the emulated PC runs, and what of that the shell calls.
const PROGRAMS: [&str; 2] = ["ndctl", "busybox"];
const APPLETS: [&str; 12] = [
    "sh", "mount", "cat", "insmod", "ip", "kill", "mkdir", "poweroff", "sleep", "tail", "tr", "ln",
];
const MODULES: [&str; 6] = [
    "nvdimm/libnvdimm.ko",
    "nvdimm/nd_btt.ko",
    "nvdimm/nd_pmem.ko",
    "acpi/nfit/nfit.ko",
    "dax/device_dax.ko",
    "dax/dax_pmem.ko",
];

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The distribution's kernel package of this kind of machine, unpacked.
fn kernel() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pc-kernel");
    if kept.exists() {
        return kept;
    }
    let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]));
    let package = depends.split_whitespace().find(|word| word.starts_with("linux-image-6"));
    let package = package.unwrap_or_else(|| panic!("no kernel package in {depends}"));
    output(Command::new("apt-get").args(["download", package]).current_dir(fresh.path()));
    let deb = fs::read_dir(fresh.path()).unwrap().next().unwrap().unwrap().path();
    let tree = fresh.path().join("tree");
    output(Command::new("dpkg-deb").arg("-x").args([&deb, &tree]));
    fs::rename(tree, &kept).unwrap();
    kept
}

fn entry(directory: &Path, start: &str) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    });
    found.unwrap_or_else(|| panic!("no {start} in {}", directory.display()))
}

fn which(name: &str) -> PathBuf {
    let places =
        ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}; ./check says which package it is in"))
}

fn copy(from: &Path, root: &Path, to: &str) {
    let to = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// A program and the libraries that it needs.
fn program(from: &Path, root: &Path, name: &str) {
    copy(from, root, &format!("bin/{name}"));
    let needed = Command::new("ldd").arg(from).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), root, library);
    }
}

/// The directory with the images that this program boots guests from.
fn image(name: &str) -> PathBuf {
    let berth = env!("CARGO_BIN_EXE_berth");
    output(Command::new(berth).args(["image", "build", name]));
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".local/share"));
    data.join("berth/images").join(name)
}

fn initramfs(root: &Path, kernel: &Path) {
    for directory in ["bin", "proc", "sys", "dev", "tmp", "run", "root", "modules"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let init = root.join("init");
    fs::write(&init, include_str!("devdax/init")).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("host.toml"), HOST).unwrap();
    for name in PROGRAMS {
        program(&which(name), root, name);
    }
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    program(Path::new(env!("CARGO_BIN_EXE_berth")), root, "berth");
    output(Command::new("strip").arg(root.join("bin/berth")));
    let drivers = entry(&kernel.join("lib/modules"), "").join("kernel/drivers");
    for module in MODULES {
        let name = Path::new(module).file_name().unwrap().to_str().unwrap();
        copy(&drivers.join(module), root, &format!("modules/{name}"));
    }
    let images = root.join("root/.local/share/berth/images");
    fs::create_dir_all(&images).unwrap();
    output(Command::new("cp").arg("-a").args([&image("minimal"), &images]));
}

#[test]
fn guest_lives_on_a_memory_device_and_moves_there() {
    let directory = tempfile::tempdir().unwrap();
    let (root, kernel) = (directory.path().join("root"), kernel());
    initramfs(&root, &kernel);
    let archive = directory.path().join("initramfs");
    let pack = "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >\"$0\"";
    output(Command::new("sh").args(["-c", pack]).arg(&archive).current_dir(&root));

    let memory = "memory-backend-ram,id=device,size=768M";
    let mut pc = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max"])
        .args(["-machine", "pc,nvdimm=on", "-m", "3G,slots=2,maxmem=8G"])
        .args(["-object", memory, "-device", "nvdimm,id=nvdimm,memdev=device"])
        .arg("-kernel")
        .arg(entry(&kernel.join("boot"), "vmlinuz"))
        .arg("-initrd")
        .arg(&archive)
        .args(["-append", "console=ttyS0 panic=-1 quiet", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-nic", "none"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86_64, which ./check installs");
    let mut console = pc.stdout.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = console.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let deadline = Instant::now() + Duration::from_secs(480);
    while pc.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = pc.kill();
    let _ = pc.wait();
    let said = said.join().unwrap();

    let rows: Vec<_> = said.lines().filter_map(|line| line.trim().strip_prefix("= ")).collect();
    let row = |start: &str| {
        let found = rows.iter().find(|row| row.starts_with(start));
        *found.unwrap_or_else(|| panic!("no {start:?} in\n{said}"))
    };
    row("the end");
    for done in [
        "0 berth move b --to 300M",
        "0 berth move a --to 34M",
        "0 berth move b --to 320M --mode stop",
        "0 berth exchange a b",
        "0 berth expand a --by 32M",
        "0 berth move b --to 200M",
        "0 berth down",
    ] {
        row(done);
    }
    assert_eq!(rows.iter().filter(|row| row.starts_with("0 berth up")).count(), 2, "{said}");
    assert!(row("1 berth move b --to 301M").contains("units of 2M"), "{said}");
    assert!(row("0 berth exec a -- cat").contains("kept"), "{said}");
    let report = row("0 berth exec b -- sh -c killall");
    assert!(report.contains("\"errors\":0"), "{report}");
}
