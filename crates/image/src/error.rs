//! Why an image could not be built, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be built, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The host lacks programs the builder uses.
    #[error(
        "this host has no {programs}: image building uses Debian's own tools. On Debian install \
         {packages}; on another distribution install its packages of the same names"
    )]
    MissingPrograms {
        /// The missing programs, separated by commas.
        programs: String,
        /// The Debian packages that have them.
        packages: String,
    },
    /// The archive's public keys are not there, so nothing could be verified.
    #[error(
        "no Debian archive keyring under /usr/share/keyrings: packages could not be verified. \
         Install the package debian-archive-keyring"
    )]
    MissingKeyring,
    /// The host's apt configuration names no Debian mirror.
    #[error(
        "the host's apt configuration names no Debian mirror. Set BERTH_MIRROR to one, for \
         example the URI in your sources.list"
    )]
    NoMirror,
    /// The host's architecture is not one whose tools the builder knows.
    #[error("images cannot be built on architecture {0}: use amd64, arm64 or riscv64")]
    HostArchitecture(String),
    /// No suite could be had whole and verified.
    #[error(
        "no package index could be fetched and verified from {mirror}:\n{reasons}\nTry again \
         later, or choose another mirror with BERTH_MIRROR or another suite with BERTH_SUITE"
    )]
    Index {
        /// The mirror asked.
        mirror: String,
        /// One line per suite tried.
        reasons: String,
    },
    /// apt could not resolve the wanted packages.
    #[error("apt cannot put together {packages}:\n{reason}\nCheck the recipe's package names")]
    Resolve {
        /// What was asked for.
        packages: String,
        /// apt's own words.
        reason: String,
    },
    /// A download broke off or a file did not match its signed hash.
    #[error("downloading packages failed:\n{0}\nRun the build again: it resumes where it stopped")]
    Download(String),
    /// The disk is full; nothing half-built stays behind.
    #[error(
        "the file system of {} is full. Free some space (an image build needs about 2 GB the \
         first time) or set XDG_CACHE_HOME and XDG_DATA_HOME to a larger disk; the image was not \
         changed",
        .0.display()
    )]
    DiskFull(PathBuf),
    /// A recipe cannot be used.
    #[error("recipe {name}: {reason}")]
    Recipe {
        /// The recipe's name or path.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no image of this name.
    #[error(
        "there is no image {0}: `berth image build {0}` makes it, `berth image list` shows all"
    )]
    NoImage(String),
    /// An image's files are damaged or incomplete.
    #[error("image {name} is damaged ({reason}): build it anew with `berth image build {name}`")]
    Damaged {
        /// The image's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// One of the tools run by the builder failed.
    #[error("{program} failed: {output}")]
    Tool {
        /// The program.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// A package does not hold what the builder relies on.
    #[error("{0}; the suite may have changed: choose another with BERTH_SUITE")]
    Content(String),
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl BuildError {
    /// A full disk, named by a directory that outlives the clean-up.
    pub(crate) fn disk_full(path: &Path) -> Self {
        let staging = |part: &Path| {
            part.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".building-"))
        };
        let kept = path.ancestors().find(|part| staging(part)).and_then(Path::parent);
        Self::DiskFull(kept.unwrap_or(path).to_path_buf())
    }

    /// The error of a file operation, telling a full disk from the rest.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::disk_full(path),
            _ => Self::Io { path: path.to_path_buf(), source },
        }
    }
}

/// Attaches the path to an I/O result.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, BuildError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::io(path, source))
    }
}
