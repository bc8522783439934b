//! A PC, emulated: the distribution's own kernel, what its first process finds, and
//! what is said on its serial line.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a command that must succeed prints.
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}; see ./check"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The path of one of the host's programs.
pub fn which(name: &str) -> PathBuf {
    let places =
        ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("there is no {name}; ./check says which package it is in"))
}

/// The file or directory there whose name begins so.
pub fn entry(directory: &Path, start: &str) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    });
    found.unwrap_or_else(|| panic!("no {start} in {}", directory.display()))
}

/// The directory with the images that this program boots guests from.
pub fn image(name: &str) -> PathBuf {
    let berth = env!("CARGO_BIN_EXE_berth");
    output(Command::new(berth).args(["image", "build", name]));
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".local/share"));
    data.join("berth/images").join(name)
}

/// What tests keep from one run to the next, made by `make` at the path it is given.
pub fn kept(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !kept.exists() {
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = fresh.path().join(name);
        make(&path);
        fs::rename(path, &kept).unwrap();
    }
    kept
}

/// The distribution's kernel package of this kind of machine, unpacked.
pub fn kernel() -> PathBuf {
    kept("pc-kernel", |tree| {
        let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]));
        let package = depends.split_whitespace().find(|word| word.starts_with("linux-image-6"));
        let package = package.unwrap_or_else(|| panic!("no kernel package in {depends}"));
        let directory = tree.parent().unwrap();
        output(Command::new("apt-get").args(["download", package]).current_dir(directory));
        let deb = entry(directory, "linux-image");
        output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(tree));
    })
}

/// A distribution's system as an archive, with systemd and what the package needs.
pub fn system() -> PathBuf {
    kept("pc-system.tar", |path| {
        output(
            Command::new("mmdebstrap")
                .args(["--variant=minbase", "--include=systemd,systemd-sysv,adduser,procps"])
                .args(["--aptopt=Acquire::Languages \"none\"", "bookworm"])
                .arg(path),
        );
    })
}

/// The Debian package of the program that is tested, made there.
pub fn package(directory: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/debian/build");
    output(Command::new(script).arg(env!("CARGO_BIN_EXE_berth")).arg(directory));
    entry(directory, "berth_").with_extension("deb")
}

/// What the first process of a PC finds.
pub struct Ram {
    directory: tempfile::TempDir,
}

impl Ram {
    /// With this first process, whose shell calls these applets.
    pub fn new(init: &str, applets: &[&str]) -> Self {
        let ram = Self { directory: tempfile::tempdir().unwrap() };
        for directory in ["bin", "proc", "sys", "dev", "tmp", "run", "root", "modules", "system"] {
            fs::create_dir_all(ram.root().join(directory)).unwrap();
        }
        ram.write("init", init);
        fs::set_permissions(ram.root().join("init"), fs::Permissions::from_mode(0o755)).unwrap();
        ram.program(&which("busybox"), "busybox");
        for applet in applets {
            symlink("busybox", ram.root().join("bin").join(applet)).unwrap();
        }
        ram
    }

    /// Where it is put together.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A file.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.root().join(name), content).unwrap();
    }

    fn copy(&self, from: &Path, to: &str) {
        let to = self.root().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }

    /// A program and the libraries that it needs.
    pub fn program(&self, from: &Path, name: &str) {
        self.copy(from, &format!("bin/{name}"));
        let needed = Command::new("ldd").arg(from).output().unwrap();
        let needed = String::from_utf8(needed.stdout).unwrap();
        for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.copy(Path::new(library), library);
        }
    }

    /// Drivers of the kernel's, by their path among these.
    pub fn modules(&self, kernel: &Path, modules: &[&str]) {
        let drivers = entry(&kernel.join("lib/modules"), "").join("kernel/drivers");
        for module in modules {
            let name = Path::new(module).file_name().unwrap().to_str().unwrap();
            self.copy(&drivers.join(module), &format!("modules/{name}"));
        }
    }

    /// Runs the PC with these arguments too, until it powers off or `patience` ends.
    pub fn run(&self, kernel: &Path, pc: &[&str], patience: Duration) -> Said {
        let archive = self.directory.path().join("initramfs");
        let pack = "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >\"$0\"";
        output(Command::new("sh").args(["-c", pack]).arg(&archive).current_dir(self.root()));
        let mut pc = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-smp", "2", "-cpu", "max"])
            .args(pc)
            .arg("-kernel")
            .arg(entry(&kernel.join("boot"), "vmlinuz"))
            .arg("-initrd")
            .arg(&archive)
            .args(["-append", "console=ttyS0 panic=-1 quiet systemd.show_status=false"])
            .args(["-no-reboot", "-display", "none", "-serial", "stdio", "-nic", "none"])
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
        let deadline = Instant::now() + patience;
        while pc.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = pc.kill();
        let _ = pc.wait();
        Said(said.join().unwrap())
    }
}

/// What a PC said. Its rows are the lines that begin with "= ".
pub struct Said(pub String);

impl Said {
    /// All rows, in order, that begin so.
    pub fn rows(&self, start: &str) -> Vec<&str> {
        let rows = self.0.lines().filter_map(|line| line.trim().strip_prefix("= "));
        rows.filter(|row| row.starts_with(start)).collect()
    }

    /// The first of them, which must be there.
    pub fn row(&self, start: &str) -> &str {
        let found = self.rows(start);
        found.first().unwrap_or_else(|| panic!("no {start:?} in\n{}", self.0))
    }
}
