//! The images on disk.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apt::Package;
use crate::digest::parts_digest;
use crate::error::{At, BuildError};
use crate::guest_programs::GuestProgram;
use crate::recipe::{Recipe, is_image_name};

/// Raised when the layout or content of images changes.
const FORMAT: &str = "1";

/// What boots the guest quietly and without the start-up work that it has no
/// use for: self-tests of random sources and ciphers, tracing, signatures of
/// modules, and the measuring of unaligned accesses.
/// Memory that is added goes into use by itself, and only for what can be moved
/// away again when it is to be given back.
/// The kernel guards itself against the guest's own programs no more than these could
/// undo: what must be kept apart is in different guests. That is a tenth of what a
/// guest executes in a short conversation.
/// Without `cma=0` the kernel sets 128 MiB aside for devices that Berth does not
/// have, and a guest of 192 MiB cannot boot for want of the rest.
const COMMAND_LINE: &str = "console=hvc0 quiet panic=-1 cma=0 \
init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off psi=0 \
memhp_default_state=online_movable initcall_blacklist=jent_mod_init,\
load_system_certificate_list,init_kprobe_trace,crypto_algapi_init,bpf_tcp_ca_kfunc_init,\
bpf_dummy_struct_ops_init,check_unaligned_access_all_cpus";

/// The files of every image.
pub(crate) const FILES: [&str; 4] = ["kernel", "initrd", "root.squashfs", "scratch.ext4"];

/// Where images and caches lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Holds `images`.
    pub data: PathBuf,
    /// Holds packages, tools and the like: may be deleted at any time when no
    /// build runs.
    pub cache: PathBuf,
}

impl Dirs {
    /// `$XDG_DATA_HOME/berth` and `$XDG_CACHE_HOME/berth`, by default in
    /// `~/.local/share` and `~/.cache`. `None` when there is no `HOME` either.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let of = |variable: &str, under_home: &str| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(under_home)))
                .map(|dir| dir.join("berth"))
        };
        Some(Self {
            data: of("XDG_DATA_HOME", ".local/share")?,
            cache: of("XDG_CACHE_HOME", ".cache")?,
        })
    }
}

/// What an image was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The image's name.
    pub name: String,
    /// The suite its packages come from.
    pub suite: String,
    /// The kernel's release, as the guest's `uname -r` says it.
    pub kernel: String,
    /// The kernel command line.
    pub command_line: String,
    /// Digest of the recipe.
    pub recipe_digest: String,
    /// Digest of the sources of agent and protocol.
    pub agent_digest: String,
    /// Packages in the root file system.
    pub packages: Vec<Package>,
    /// Packages of the kernel.
    pub kernel_packages: Vec<Package>,
    /// Why guests of the image keep the memory they boot with; `None` if they
    /// can be given more, and give it back, while they run.
    #[serde(default = "no_memory_driver")]
    pub fixed_memory: Option<String>,
}

/// What images say that were built without it.
pub(crate) fn no_memory_driver() -> Option<String> {
    Some("the image was built without a memory driver; build it again".to_owned())
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's name.
    pub name: String,
    /// The uncompressed kernel.
    pub kernel: PathBuf,
    /// The initramfs with agent and modules.
    pub initrd: PathBuf,
    /// The root file system, squashfs.
    pub root: PathBuf,
    /// An empty ext4 file system, the base of copy-on-write data disks.
    pub scratch: PathBuf,
    /// The kernel command line.
    pub command_line: String,
    /// What the image was made of.
    pub manifest: Manifest,
}

/// Kernel and initramfs that run the guest benchmark in place of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BenchBoot {
    /// The uncompressed kernel.
    pub kernel: PathBuf,
    /// The initramfs whose `/init` is the benchmark.
    pub initrd: PathBuf,
    /// The kernel command line.
    pub command_line: String,
}

/// The images of one user and the cache they are built from.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dirs: Dirs,
}

/// The kernel command line of every image.
pub(crate) fn command_line() -> String {
    COMMAND_LINE.to_owned()
}

/// That of the benchmark, which speaks before there is a virtio console.
pub(crate) fn bench_command_line() -> String {
    format!("{COMMAND_LINE} earlycon=sbi keep_bootcon printk.devkmsg=on")
}

/// Digest of all that a root file system and its manifest depend on.
pub(crate) fn recipe_digest(recipe: &Recipe) -> Result<String, BuildError> {
    let text = serde_json::to_string(recipe).map_err(|error| BuildError::Recipe {
        name: recipe.name.clone(),
        reason: error.to_string(),
    })?;
    Ok(parts_digest([FORMAT, COMMAND_LINE, &text]))
}

impl ImageStore {
    /// The store in `dirs`, which need not exist yet.
    #[must_use]
    pub fn open(dirs: Dirs) -> Self {
        Self { dirs }
    }

    pub(crate) fn cache(&self) -> &Path {
        &self.dirs.cache
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.dirs.data.join("images")
    }

    fn directory(&self, name: &str) -> Result<PathBuf, BuildError> {
        if is_image_name(name) {
            return Ok(self.images().join(name));
        }
        Err(BuildError::NoImage(name.to_owned()))
    }

    /// The image `name`.
    ///
    /// # Errors
    /// [`BuildError::NoImage`], or [`BuildError::Damaged`] when a file of it
    /// is missing or its manifest unreadable.
    pub fn get(&self, name: &str) -> Result<Image, BuildError> {
        let dir = self.directory(name)?;
        if !dir.is_dir() {
            return Err(BuildError::NoImage(name.to_owned()));
        }
        let damaged = |reason: String| BuildError::Damaged { name: name.to_owned(), reason };
        let text = fs::read_to_string(dir.join("manifest.json"))
            .map_err(|error| damaged(format!("manifest.json: {error}")))?;
        let manifest: Manifest = serde_json::from_str(&text)
            .map_err(|error| damaged(format!("manifest.json: {error}")))?;
        for file in FILES {
            if !dir.join(file).is_file() {
                return Err(damaged(format!("{file} is missing")));
            }
        }
        Ok(Image {
            name: name.to_owned(),
            kernel: dir.join("kernel"),
            initrd: dir.join("initrd"),
            root: dir.join("root.squashfs"),
            scratch: dir.join("scratch.ext4"),
            command_line: manifest.command_line.clone(),
            manifest,
        })
    }

    /// All sound images, by name.
    ///
    /// # Errors
    /// When the directory of images cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, BuildError> {
        let dir = self.images();
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut images: Vec<Image> = fs::read_dir(&dir)
            .at(&dir)?
            .flatten()
            .filter_map(|entry| self.get(&entry.file_name().to_string_lossy()).ok())
            .collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Removes the image `name`, damaged or not. A guest that has its files
    /// open goes on.
    ///
    /// # Errors
    /// [`BuildError::NoImage`], or the failed file operation.
    pub fn remove(&self, name: &str) -> Result<(), BuildError> {
        let dir = self.directory(name)?;
        if !dir.is_dir() {
            return Err(BuildError::NoImage(name.to_owned()));
        }
        // Renamed first: nobody sees half an image.
        let gone = self.images().join(format!(".building-removed-{name}-{}", std::process::id()));
        fs::rename(&dir, &gone).at(&dir)?;
        fs::remove_dir_all(&gone).at(&gone)
    }

    /// The existing image when it is what `recipe` and this program's agent
    /// would give now.
    pub(crate) fn current(&self, recipe: &Recipe) -> Result<Option<Image>, BuildError> {
        let digest = recipe_digest(recipe)?;
        Ok(self.get(&recipe.name).ok().filter(|image| {
            image.manifest.recipe_digest == digest
                && image.manifest.agent_digest == GuestProgram::Agent.digest()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs { data: dir.path().join("data"), cache: dir.path().join("cache") };
        (dir, ImageStore::open(dirs))
    }

    #[test]
    fn an_empty_store_has_no_image_and_says_how_to_get_one() {
        let (_dir, store) = store();
        assert!(store.list().unwrap().is_empty());
        let error = store.get("minimal").unwrap_err().to_string();
        assert!(error.contains("berth image build minimal"), "{error}");
        assert!(matches!(store.remove("minimal"), Err(BuildError::NoImage(_))));
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        let (dir, store) = store();
        fs::create_dir_all(store.images()).unwrap();
        fs::create_dir_all(dir.path().join("data/precious")).unwrap();
        assert!(store.remove("../precious").is_err());
        assert!(store.remove("").is_err());
        assert!(dir.path().join("data/precious").is_dir());
    }

    #[test]
    fn a_damaged_image_is_named_with_the_fault_and_can_be_removed() {
        let (_dir, store) = store();
        fs::create_dir_all(store.images().join("minimal")).unwrap();
        let error = store.get("minimal").unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("manifest.json"), "{error}");
        store.remove("minimal").unwrap();
        assert_eq!(fs::read_dir(store.images()).unwrap().count(), 0);
    }
}
