//! The distribution's kernel: its image and the few modules a guest needs,
//! taken from the package, unpacked and stripped.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use crate::apt::{Apt, Keep, Package, Plan};
use crate::cpio::Archive;
use crate::digest::parts_digest;
use crate::error::{At, BuildError};
use crate::modules::{ALWAYS, DISK, DISK_OPTIONAL, canonical, depends, load_order};
use crate::process::command;
use crate::progress::{Phase, Progress};
use crate::tools::Tools;
use crate::unpack::unpack;

/// Raised when the choice or treatment of modules changes.
const VERSION: &str = "2";

/// The modules a guest loads that can be given memory while it runs.
const MEMORY_ORDER: &str = "order.memory";

/// The kernel's parts in the cache: `image`, `release`, `order`,
/// `order.disk`, `*.ko` and perhaps `order.memory`.
pub(crate) struct Kernel {
    dir: PathBuf,
}

/// The kernel packages of the suite.
pub(crate) fn plan(apt: &Apt) -> Result<Plan, BuildError> {
    apt.plan(
        "riscv64",
        &["linux-image-riscv64"],
        &Keep::Only(&[
            "linux-image-*-riscv64",
            "linux-binary-*-riscv64",
            "linux-modules-*-riscv64",
        ]),
    )
}

impl Kernel {
    fn directory(cache: &Path, packages: &[Package]) -> PathBuf {
        let files = packages.iter().map(|package| package.sha256.as_str());
        cache.join("kernels").join(parts_digest([VERSION].into_iter().chain(files)))
    }

    /// The kernel of `packages`, if it is in the cache.
    pub(crate) fn cached(cache: &Path, packages: &[Package]) -> Option<Self> {
        let dir = Self::directory(cache, packages);
        dir.is_dir().then_some(Self { dir })
    }

    /// Takes the kernel out of the packages of `plan`, which are downloaded if needed.
    pub(crate) fn obtain(
        cache: &Path,
        apt: &Apt,
        plan: &Plan,
        tools: &Tools,
        progress: &dyn Progress,
    ) -> Result<Self, BuildError> {
        if let Some(kernel) = Self::cached(cache, &plan.packages) {
            return Ok(kernel);
        }
        apt.download(plan, progress)?;
        progress.phase(Phase::Kernel);
        let kernels = cache.join("kernels");
        fs::create_dir_all(&kernels).at(&kernels)?;
        let unpacked =
            tempfile::Builder::new().prefix(".building-").tempdir_in(&kernels).at(&kernels)?;
        for package in &plan.packages {
            unpack(&apt.deb(package), unpacked.path(), &["*/vmlinu*", "*.ko*"])?;
        }
        let staging =
            tempfile::Builder::new().prefix(".building-").tempdir_in(&kernels).at(&kernels)?;
        take_image(unpacked.path(), staging.path())?;
        fs::write(staging.path().join("release"), release(unpacked.path())?).at(staging.path())?;
        take_modules(unpacked.path(), staging.path(), tools)?;
        let dir = Self::directory(cache, &plan.packages);
        fs::rename(staging.keep(), &dir).at(&dir)?;
        Ok(Self { dir })
    }

    /// The uncompressed kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// The kernel's release, as `uname -r` says it.
    pub(crate) fn release(&self) -> Result<String, BuildError> {
        let file = self.dir.join("release");
        fs::read_to_string(&file).at(&file)
    }

    /// Whether its modules hold the driver for memory that comes and goes.
    pub(crate) fn has_memory_driver(&self) -> bool {
        self.dir.join(MEMORY_ORDER).is_file()
    }

    /// Adds that driver, called `name`, from the file `module` beside the
    /// kernel's directory, which is moved.
    pub(crate) fn add_memory_driver(&self, name: &str, module: &Path) -> Result<(), BuildError> {
        let to = self.dir.join(format!("{name}.ko"));
        fs::rename(module, &to).at(&to)?;
        // Last, and at once: the list says that the driver is there.
        let list = module.with_extension("order");
        fs::write(&list, format!("{name}.ko\n")).at(&list)?;
        let to = self.dir.join(MEMORY_ORDER);
        fs::rename(&list, &to).at(&to)
    }

    /// Writes the initramfs: `init` and the modules with their load orders.
    pub(crate) fn write_initrd(&self, init: &Path, to: &Path) -> Result<(), BuildError> {
        let program = fs::read(init).at(init)?;
        let mut modules = Vec::new();
        for entry in fs::read_dir(&self.dir).at(&self.dir)? {
            let path = entry.at(&self.dir)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name != "image" && name != "release" {
                modules.push((format!("modules/{name}"), fs::read(&path).at(&path)?));
            }
        }
        modules.sort();
        let out = fs::File::create(to).at(to)?;
        let mut archive = Archive::new(std::io::BufWriter::new(out));
        let mut write = || -> std::io::Result<()> {
            for name in ["dev", "proc", "sys", "modules"] {
                archive.directory(name)?;
            }
            // Without it the kernel gives the first process no output.
            archive.device("dev/console", 5, 1)?;
            archive.file("init", &program)?;
            modules.iter().try_for_each(|(name, data)| archive.file(name, data))
        };
        write().at(to)?;
        archive.finish().at(to).map(drop)
    }
}

/// Every file under `dir` whose name `wanted` accepts, by the key it gives.
/// Links are not followed.
fn find_files(
    dir: &Path,
    wanted: &dyn Fn(&str) -> Option<String>,
    into: &mut BTreeMap<String, PathBuf>,
) -> Result<(), BuildError> {
    for entry in fs::read_dir(dir).at(dir)?.flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            find_files(&path, wanted, into)?;
        } else if let Some(key) = wanted(&entry.file_name().to_string_lossy()) {
            into.insert(key, path);
        }
    }
    Ok(())
}

/// The release, by the directory the modules lie in.
fn release(tree: &Path) -> Result<String, BuildError> {
    ["usr/lib/modules", "lib/modules"]
        .iter()
        .filter_map(|dir| fs::read_dir(tree.join(dir)).ok())
        .flat_map(Iterator::flatten)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .next()
        .ok_or_else(|| BuildError::Content("the kernel's packages hold no modules".to_owned()))
}

/// Copies the kernel image, unpacked if need be.
fn take_image(tree: &Path, into: &Path) -> Result<(), BuildError> {
    let mut files = BTreeMap::new();
    find_files(tree, &|name| name.starts_with("vmlinu").then(|| name.to_owned()), &mut files)?;
    let (name, file) = files.first_key_value().ok_or_else(|| {
        BuildError::Content("the kernel's packages hold no kernel image".to_owned())
    })?;
    let mut bytes = fs::read(file).at(file)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes = command("gzip").arg("-dc").arg(file).output().at(file)?.stdout;
    }
    // Offset and magic of the kernel's Documentation/arch/riscv/boot-image-header.rst.
    if bytes.get(0x30..0x35) != Some(b"RISCV") {
        return Err(BuildError::Content(format!("{name} is not a plain RISC-V kernel image")));
    }
    fs::write(into.join("image"), bytes).at(&into.join("image"))
}

fn read_module(path: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::read(path).at(path)?;
    if !bytes.starts_with(b"\xfd7zXZ") {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    lzma_rs::xz_decompress(&mut Cursor::new(bytes), &mut plain).map_err(|error| {
        BuildError::Content(format!("{} cannot be decompressed: {error:?}", path.display()))
    })?;
    Ok(plain)
}

/// Unpacks and strips the wanted modules and all they need, and writes both
/// load orders.
fn take_modules(from: &Path, into: &Path, tools: &Tools) -> Result<(), BuildError> {
    let mut files = BTreeMap::new();
    let module = |name: &str| name.split_once(".ko").map(|(name, _)| canonical(name));
    find_files(from, &module, &mut files)?;
    let mut known = BTreeMap::new();
    let mut contents = BTreeMap::new();
    let mut open: Vec<String> =
        ALWAYS.iter().chain(&DISK).chain(&DISK_OPTIONAL).map(|name| canonical(name)).collect();
    while let Some(name) = open.pop() {
        let Some(path) = files.get(&name).filter(|_| !known.contains_key(&name)) else { continue };
        let module = read_module(path)?;
        let needs = depends(&module).ok_or_else(|| {
            BuildError::Content(format!("{} is not a kernel module", path.display()))
        })?;
        open.extend(needs.iter().cloned());
        known.insert(name.clone(), needs);
        contents.insert(name, module);
    }
    let always = load_order(&ALWAYS, &known);
    let disk: Vec<&str> = DISK_OPTIONAL.iter().chain(&DISK).copied().collect();
    let mut disk = load_order(&disk, &known);
    disk.retain(|name| !always.contains(name));
    for name in always.iter().chain(&disk) {
        let file = into.join(format!("{name}.ko"));
        if let Some(module) = contents.get(name) {
            fs::write(&file, module).at(&file)?;
        }
        tools.strip_module(&file)?;
    }
    for (list, names) in [("order", &always), ("order.disk", &disk)] {
        let text: String = names.iter().map(|name| format!("{name}.ko\n")).collect();
        fs::write(into.join(list), text).at(&into.join(list))?;
    }
    Ok(())
}
