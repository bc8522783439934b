//! Builds `minimal` for real. Packages and tools stay in `$BERTH_TEST_CACHE`,
//! by default under the target directory, so that only the first run
//! downloads.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use image::{BuildError, Dirs, ImageStore, Phase, Progress, Recipe};

#[derive(Default)]
struct Phases(Mutex<Vec<Phase>>);

impl Progress for Phases {
    fn phase(&self, phase: Phase) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(phase);
    }
    fn advance(&self, done: u64, total: u64) {
        assert!(done <= total);
    }
    fn notice(&self, message: &str) {
        println!("{message}");
    }
}

fn cache() -> PathBuf {
    std::env::var_os("BERTH_TEST_CACHE").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("image-cache"),
        PathBuf::from,
    )
}

fn contains(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

#[test]
fn minimal_is_built_whole_from_verified_packages_and_only_once() {
    let data = tempfile::tempdir().unwrap();
    let store = ImageStore::open(Dirs { data: data.path().to_path_buf(), cache: cache() });
    let recipe = Recipe::find("minimal").unwrap();
    let phases = Phases::default();
    let image = store.ensure(&recipe, &phases).unwrap();

    let kernel = fs::read(&image.kernel).unwrap();
    assert_eq!(&kernel[0x30..0x35], b"RISCV");

    let initrd = fs::read(&image.initrd).unwrap();
    assert!(initrd.starts_with(b"070701"));
    for name in
        ["init", "modules/order", "modules/order.disk", "modules/squashfs.ko", "modules/ext4.ko"]
    {
        assert!(contains(&initrd, &format!("{name}\0")), "{name} is not in the initramfs");
    }
    let order = String::from("virtio_mmio.ko\nvirtio_blk.ko\n");
    assert!(contains(&initrd, &order), "the disk driver must be loaded first");

    // The driver is compiled here; a mirror may lack what that takes.
    let driver = contains(&initrd, "modules/virtio_mem.ko\0");
    assert_eq!(driver, contains(&initrd, "modules/order.memory\0"));
    assert_eq!(driver, image.manifest.fixed_memory.is_none(), "{:?}", image.manifest.fixed_memory);
    assert!(image.command_line.contains("memhp_default_state=online_movable"));

    let root = fs::read(&image.root).unwrap();
    assert!(root.starts_with(b"hsqs"));
    // Neither names nor contents are compressed.
    for text in ["root:x:0:0:root:/root:/bin/sh", "busybox", "mkswap", "VERSION_CODENAME"] {
        assert!(contains(&root, text), "{text} is not in the root file system");
    }

    let scratch = fs::metadata(&image.scratch).unwrap();
    assert_eq!(scratch.len(), 256 << 20);
    assert!(scratch.blocks() * 512 < 32 << 20, "the template is not sparse");

    let busybox = &image.manifest.packages[0];
    assert_eq!(
        (busybox.name.as_str(), busybox.architecture.as_str()),
        ("busybox-static", "riscv64")
    );
    assert_eq!(busybox.sha256.len(), 64);
    assert!(
        recipe.suites.contains(&image.manifest.suite) || std::env::var_os("BERTH_SUITE").is_some()
    );
    assert!(phases.0.lock().unwrap().contains(&Phase::Publish));

    let inode = fs::metadata(&image.initrd).unwrap().ino();
    let again = Phases::default();
    assert_eq!(store.ensure(&recipe, &again).unwrap(), image);
    assert!(again.0.lock().unwrap().is_empty(), "an image up to date was built again");
    assert_eq!(fs::metadata(&image.initrd).unwrap().ino(), inode);

    assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
    fs::remove_file(&image.initrd).unwrap();
    assert!(matches!(store.get("minimal"), Err(BuildError::Damaged { .. })));
    store.remove("minimal").unwrap();
    assert_eq!(fs::read_dir(data.path().join("images")).unwrap().count(), 0);
}

#[test]
fn a_package_that_does_not_exist_is_refused_by_name_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let store = ImageStore::open(Dirs { data: data.path().to_path_buf(), cache: cache() });
    let mut recipe = Recipe::find("minimal").unwrap();
    recipe.packages.push("no-such-package-anywhere".to_owned());
    let error = store.build(&recipe, &Phases::default()).unwrap_err();
    assert!(matches!(error, BuildError::Resolve { .. }), "{error}");
    assert!(error.to_string().contains("no-such-package-anywhere"));
    assert_eq!(fs::read_dir(data.path().join("images")).unwrap().count(), 0);
}
