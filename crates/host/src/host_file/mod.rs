//! The host file: what an operator declares, checked.
//!
//! ```toml
//! [main_storage]
//! size = "509M"
//! backing = "memfd"             # default; or "hugetlb-2M", "hugetlb-1G", "file"
//! path = "/dev/dax0.0"          # with backing = "file" only: a file or devdax
//! reserve = false               # default; true takes all of a memfd at once
//! numa_node = 0                 # default: any; not with backing = "file"
//!
//! [host]
//! device_wait = "10s"           # default
//!
//! [[partition]]
//! name = "lpar1"
//! size = "128M"
//! origin = "0"                  # default: the smallest gap that fits
//! image = "minimal"
//! vcpus = 1                     # default: one per host CPU named, else 1
//! host_cpus = [0]               # default: any host CPU nobody has exclusively
//! cpu_sharing = "exclusive"     # or "time-shared"; needed with host_cpus
//! disk = "64M"                  # data disk at /data; default: none
//! autostart = true              # default
//! engine = "soft"               # default
//! io_keys = { rng = 3 }         # access keys of I/O processors; default: 0
//! ```
//!
//! Pools are described where they are read ([`PoolSpec`]). Their users come in
//! by the gateway:
//!
//! ```toml
//! [gateway]
//! listen = "127.0.0.1:7600"     # LU 6.2 over TLS; default: the local socket only
//! certificate = "host.crt"      # with key; default: made in the state directory
//! key = "host.key"
//! socket_mode = "0600"          # of the local socket; default
//! users = "users.toml"          # default: users.toml in the state directory
//! jwks = "keys.json"            # keys of tokens instead of passwords; default: none
//! issuer = "berth"              # their maker; default
//! audience = "berth"            # whom they are for; default
//! ```
//!
//! The operator's interface is described where it is read ([`ApiSpec`]).
//!
//! [`HostFile::parse`] is pure: what depends on the host it runs on
//! ([`HostFile::check_host`]) or on the images there are is asked separately.

mod api;
mod database;
mod files;
mod place;
mod pool;
mod raw;
mod telemetry;

pub use api::ApiSpec;
pub use files::FilesSpec;
pub(crate) use place::is_image_name;
pub use pool::{MAX_POOL_FILE, PoolFile, PoolSpec, ProgramKind, ProgramSpec};
pub use telemetry::Collector;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use database_manager::ServerSpec;
use main_storage::{AccessKey, PartitionName, Size, StorageMap, StorageRange};
use service_pool::MemberId;
use storage_window::Backing;

/// vCPUs a partition can have.
pub const MAX_VCPUS: u8 = 8;
/// Partitions a host can have: each is a process with its own threads.
pub const MAX_PARTITIONS: usize = 256;
/// Bytes a host file can have.
pub const MAX_FILE: usize = 1 << 20;

/// A checked host file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// Bytes of main storage.
    pub main_storage: u64,
    /// What it is made of.
    pub backing: Backing,
    /// The NUMA node its memory comes from.
    pub numa_node: Option<u32>,
    /// How long a move waits for busy I/O processors.
    pub device_wait: Duration,
    /// The partitions in the order of the file, then the machines of its pools.
    pub partitions: Vec<PartitionSpec>,
    /// The pools.
    pub pools: Vec<PoolSpec>,
    /// Where their users come in.
    pub gateway: GatewaySpec,
    /// Where their users' files are.
    pub files: FilesSpec,
    /// Where their databases are; none: a SQLite file each.
    pub database: Option<ServerSpec>,
    /// Where its operators come in by HTTP.
    pub api: ApiSpec,
    /// Where traces go.
    pub telemetry: Option<Collector>,
}

/// The gateway as declared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewaySpec {
    /// Network address, with TLS; none: only the local socket.
    pub listen: Option<std::net::SocketAddr>,
    /// PEM files of certificate and key; none: made at first use.
    pub certificate: Option<PathBuf>,
    /// See [`GatewaySpec::certificate`].
    pub key: Option<PathBuf>,
    /// File mode of the local socket.
    pub socket_mode: u32,
    /// The users file; none: in the state directory.
    pub users: Option<PathBuf>,
    /// Keys of tokens that users may present instead of passwords.
    pub jwks: Option<PathBuf>,
    /// Who makes those tokens, and what this host's own name as their maker.
    pub issuer: String,
    /// Whom those tokens are for.
    pub audience: String,
}

/// A partition as declared, its place in main storage decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Its name.
    pub name: PartitionName,
    /// Where its storage is when the host starts.
    pub range: StorageRange,
    /// Whether it was declared where; otherwise it is there for best fit.
    pub declared: bool,
    /// Name of the guest image.
    pub image: String,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Which host CPUs its vCPUs run on.
    pub cpus: CpuAssignment,
    /// Bytes of its data disk.
    pub disk: Option<u64>,
    /// Whether it is started with the host.
    pub autostart: bool,
    /// What executes its instructions.
    pub engine: Engine,
    /// Access keys of I/O processors, by name.
    pub io_keys: BTreeMap<String, AccessKey>,
    /// Line in the host file where it begins.
    pub line: usize,
}

/// Host CPUs of a partition (Fig. 1A).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuAssignment {
    /// Any that nobody has exclusively.
    Floating,
    /// These, and nobody else runs on them.
    Exclusive(Vec<usize>),
    /// These, shared with everybody else who names them so.
    TimeShared(Vec<usize>),
}

impl CpuAssignment {
    /// The host CPUs named; none when floating.
    #[must_use]
    pub fn named(&self) -> &[usize] {
        match self {
            Self::Floating => &[],
            Self::Exclusive(cpus) | Self::TimeShared(cpus) => cpus,
        }
    }
}

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The CPU in software.
    #[default]
    Soft,
}

impl Engine {
    /// As the host file and `berth status` write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soft => "soft",
        }
    }
}

/// Why a host file cannot be used. Its author is to blame; the message names
/// the line, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum HostFileError {
    /// The file cannot be read.
    #[error("cannot read the host file {path}: {source}; name another with `-f FILE`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a field that is unknown, missing or of the wrong type.
    #[error("{message}")]
    Syntax {
        /// Says where, shows the line.
        message: String,
    },
    /// A value that cannot be.
    #[error("line {line}: {what}")]
    Value {
        /// Line in the file, from 1.
        line: usize,
        /// Cause and remedy.
        what: String,
    },
}

impl HostFile {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`HostFileError`].
    pub fn read(path: &Path) -> Result<Self, HostFileError> {
        let read = |source| HostFileError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut text = String::new();
        // One byte more than allowed, so that a longer file is noticed.
        let mut bounded = std::io::Read::take(file, MAX_FILE as u64 + 1);
        std::io::Read::read_to_string(&mut bounded, &mut text).map_err(read)?;
        let mut file = Self::parse(&text)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for file in file.pools.iter_mut().flat_map(|pool| &mut pool.files) {
            file.source = dir.join(&file.source);
        }
        if let Some(directory) = &mut file.files.directory {
            *directory = dir.join(&*directory);
        }
        let server = file.database.as_mut();
        let server = server.map(|one| [&mut one.credentials, &mut one.authority]);
        for path in server.into_iter().flatten().flatten() {
            *path = dir.join(&*path);
        }
        if let Some(authority) = file.telemetry.as_mut().and_then(|one| one.authority.as_mut()) {
            *authority = dir.join(&*authority);
        }
        let GatewaySpec { certificate, key, users, jwks, .. } = &mut file.gateway;
        let api = file.api.files();
        for path in [certificate, key, users, jwks].into_iter().flatten().chain(api) {
            *path = dir.join(&*path);
        }
        Ok(file)
    }

    /// Checks a host file's text.
    ///
    /// # Errors
    /// [`HostFileError::Syntax`] or [`HostFileError::Value`].
    pub fn parse(text: &str) -> Result<Self, HostFileError> {
        if text.len() > MAX_FILE {
            return Err(HostFileError::Syntax {
                message: format!(
                    "a host file has at most {} bytes; this is more",
                    Size(MAX_FILE as u64)
                ),
            });
        }
        place::decide(text, raw::parse(text)?)
    }

    /// The pool that the partition `name` is a machine of.
    #[must_use]
    pub fn pool_of(&self, name: &PartitionName) -> Option<&PoolSpec> {
        if self.pools.is_empty() {
            return None;
        }
        let member: MemberId = name.as_str().parse().ok()?;
        self.pools.iter().find(|pool| pool.members().any(|one| one == member))
    }

    /// The map of main storage as it is when the host starts.
    ///
    /// # Errors
    /// Never for a file that [`HostFile::parse`] accepted.
    pub fn map(&self) -> Result<StorageMap, main_storage::Refusal> {
        let mut map = StorageMap::in_units(self.main_storage, self.backing.granularity())?;
        for partition in &self.partitions {
            map.assign(partition.name.clone(), partition.range)?;
        }
        Ok(map)
    }

    /// Host CPUs that somebody has exclusively.
    pub fn exclusive_cpus(&self) -> impl Iterator<Item = usize> + '_ {
        self.partitions
            .iter()
            .flat_map(|partition| match &partition.cpus {
                CpuAssignment::Exclusive(cpus) => cpus.as_slice(),
                CpuAssignment::Floating | CpuAssignment::TimeShared(_) => &[],
            })
            .copied()
    }

    /// Checks that no host CPU is one partition's exclusively and another's too.
    ///
    /// # Errors
    /// [`HostFileError::Value`].
    pub fn check_sharing(&self) -> Result<(), HostFileError> {
        place::check_sharing(&self.partitions)
    }

    /// Checks what depends on the host: whether it has the CPUs (`online`, by
    /// number) that the file names, and one left for whoever floats.
    ///
    /// # Errors
    /// [`HostFileError::Value`].
    pub fn check_host(&self, online: &[usize]) -> Result<(), HostFileError> {
        for partition in &self.partitions {
            let missing = partition.cpus.named().iter().find(|cpu| !online.contains(cpu));
            if let Some(cpu) = missing {
                return Err(partition.wrong(format!(
                    "this host has no CPU {cpu} for it, only {online:?}; \
                     change host_cpus or leave it out"
                )));
            }
            let floats = partition.cpus == CpuAssignment::Floating;
            if floats && online.iter().all(|cpu| self.exclusive_cpus().any(|taken| taken == *cpu)) {
                return Err(partition.wrong(
                    "every host CPU is exclusively somebody else's; leave one free or name \
                     time-shared host_cpus"
                        .to_owned(),
                ));
            }
        }
        Ok(())
    }
}

impl PartitionSpec {
    /// An error about this partition.
    #[must_use]
    pub fn wrong(&self, what: String) -> HostFileError {
        HostFileError::Value {
            line: self.line,
            what: format!("partition \"{}\": {what}", self.name),
        }
    }
}

#[cfg(test)]
mod tests;
