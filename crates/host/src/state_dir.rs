//! The state directory: one host per directory.
//!
//! ```text
//! lock                 locked by the host as long as it lives; its process id
//! lu62.sock            users of service pools
//! api.sock             the operator's interface by HTTP (mode 0600)
//! api_tokens.toml      hashes of tokens for it
//! host.log             what a detached host says
//! journal              partitions and commands in flight
//! storage.sock         the keeper of main storage
//! storage.log          what the keeper said last
//! workers/NAME.sock    the worker of partition NAME
//! workers/NAME.log     what that worker said last
//! logins.json          who is which role of which database (mode 0600)
//! database.log         what the database manager said last
//! disks/NAME.overlay   what the guest wrote to its data disk
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use rustix::fs::FlockOperation;

/// Bytes a socket's path can have: `sun_path` holds 108 with its final NUL
/// (unix(7)).
const SOCKET_PATH: usize = 107;

/// How long a host that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(10);

/// Why a state directory cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or written.
    #[error("cannot use the state directory {path}: {source}; choose another with --state-dir")]
    Unusable {
        /// The directory or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Sockets in it would have names that are too long.
    #[error(
        "the state directory {path} has too long a name for the sockets in it (more than \
         {SOCKET_PATH} bytes); choose a shorter one with --state-dir"
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
    },
    /// Another host uses it.
    #[error(
        "a host (process {pid}) already runs on the state directory {path}; end it with \
         `berth down`, or choose another directory with --state-dir"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// That host's process id, as it wrote it.
        pid: String,
    },
    /// There is neither XDG_STATE_HOME nor HOME.
    #[error("there is no home directory; set BERTH_STATE_DIR or use --state-dir")]
    NoHome,
}

/// A state directory. It need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// Proof that this process is the directory's host; gives it up when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl StateDir {
    /// The directory `given`, or the user's own: `$XDG_STATE_HOME/berth`, else
    /// `~/.local/state/berth`.
    ///
    /// # Errors
    /// [`StateDirError::NoHome`] or [`StateDirError::Unusable`].
    pub fn choose(given: Option<PathBuf>) -> Result<Self, StateDirError> {
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let path = match given {
            Some(path) => path,
            None => absolute("XDG_STATE_HOME")
                .or_else(|| Some(absolute("HOME")?.join(".local/state")))
                .ok_or(StateDirError::NoHome)?
                .join("berth"),
        };
        let path = std::path::absolute(&path)
            .map_err(|source| StateDirError::Unusable { path, source })?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The gateway's socket, for users of service pools.
    #[must_use]
    pub fn gateway_socket(&self) -> PathBuf {
        self.0.join("lu62.sock")
    }

    /// The operator's interface.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }

    /// Hashes of the operator's interface's tokens.
    #[must_use]
    pub fn api_tokens(&self) -> PathBuf {
        self.0.join("api_tokens.toml")
    }

    /// What a detached host says.
    #[must_use]
    pub fn host_log(&self) -> PathBuf {
        self.0.join("host.log")
    }

    /// Partitions and commands in flight, for a host that comes later.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// The socket of the keeper of main storage.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.0.join("storage.sock")
    }

    /// What the keeper of main storage said last.
    #[must_use]
    pub fn keeper_log(&self) -> PathBuf {
        self.0.join("storage.log")
    }

    /// The socket of a partition's worker.
    #[must_use]
    pub fn worker_socket(&self, name: &PartitionName) -> PathBuf {
        self.0.join("workers").join(format!("{name}.sock"))
    }

    /// What a partition's worker said last.
    #[must_use]
    pub fn worker_log(&self, name: &PartitionName) -> PathBuf {
        self.0.join("workers").join(format!("{name}.log"))
    }

    /// What a guest wrote to its data disk.
    #[must_use]
    pub fn disk_overlay(&self, name: &PartitionName) -> PathBuf {
        self.0.join("disks").join(format!("{name}.overlay"))
    }

    /// Users with their password hashes.
    #[must_use]
    pub fn users(&self) -> PathBuf {
        self.0.join("users.toml")
    }

    /// The key that tokens are signed with.
    #[must_use]
    pub fn token_key(&self) -> PathBuf {
        self.0.join("token.key")
    }

    /// The public keys that verify those tokens (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> PathBuf {
        self.0.join("jwks.json")
    }

    /// Who wore which machine from when to when.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.0.join("audit.jsonl")
    }

    /// Captures of pools, a directory each.
    #[must_use]
    pub fn captures(&self) -> PathBuf {
        self.0.join("captures")
    }

    /// The spaces of users' files, unless the host file names another place.
    #[must_use]
    pub fn spaces(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Who may reach which space.
    #[must_use]
    pub fn access_table(&self) -> PathBuf {
        self.0.join("access.json")
    }

    /// What the file manager said last.
    #[must_use]
    pub fn files_log(&self) -> PathBuf {
        self.0.join("files.log")
    }

    /// Who is which role of which database.
    #[must_use]
    pub fn login_table(&self) -> PathBuf {
        self.0.join("logins.json")
    }

    /// What the database manager said last.
    #[must_use]
    pub fn database_log(&self) -> PathBuf {
        self.0.join("database.log")
    }

    /// Partitions that have a worker's socket, alive or left over.
    #[must_use]
    pub fn worker_sockets(&self) -> Vec<PartitionName> {
        let entries = fs::read_dir(self.0.join("workers")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                PartitionName::new(name.to_str()?.strip_suffix(".sock")?).ok()
            })
            .collect()
    }

    /// Checks that sockets in it can be named.
    ///
    /// # Errors
    /// [`StateDirError::TooLong`].
    pub fn check(&self) -> Result<(), StateDirError> {
        // The longest name: a partition's has at most 31 bytes.
        let longest = self.0.join("workers").join("x".repeat(31) + ".sock");
        if longest.as_os_str().len() > SOCKET_PATH {
            return Err(StateDirError::TooLong { path: self.0.clone() });
        }
        Ok(())
    }

    /// Makes the directory, for its owner only, if it is not there.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn make(&self) -> Result<(), StateDirError> {
        self.check()?;
        for path in [self.0.clone(), self.0.join("workers"), self.0.join("disks")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|source| StateDirError::Unusable { path, source })?;
        }
        Ok(())
    }

    /// Makes the directory and locks it.
    ///
    /// # Errors
    /// [`StateDirError`].
    pub fn lock(&self) -> Result<Lock, StateDirError> {
        self.make()?;
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| StateDirError::Unusable { path, source }
        };
        let path = self.0.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(unusable(&path))?;
        let deadline = Instant::now() + DYING;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(unusable(&path)(error.into())),
            }
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() };
            if !is_dying(pid) || Instant::now() >= deadline {
                return Err(StateDirError::InUse { path: self.0.clone(), pid: pid.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(unusable(&path))?;
        Ok(Lock { _file: file })
    }
}

/// Whether a process that still has its files has no memory any more: it was
/// killed, and will be gone as soon as the kernel has come to it.
fn is_dying(pid: &str) -> bool {
    let numeric = pid.bytes().all(|byte| byte.is_ascii_digit());
    let process = Path::new("/proc").join(pid);
    numeric && process.exists() && fs::read_link(process.join("exe")).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_host_is_refused_and_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::choose(Some(dir.path().join("s"))).unwrap();
        let first = state.lock().unwrap();
        let error = state.lock().unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(state.lock().is_ok());
    }

    #[test]
    fn a_name_too_long_for_sockets_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d".repeat(100));
        let state = StateDir::choose(Some(path.clone())).unwrap();
        assert!(matches!(state.lock(), Err(StateDirError::TooLong { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn only_its_owner_can_enter() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::choose(Some(dir.path().join("s"))).unwrap();
        let _lock = state.lock().unwrap();
        assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn left_over_sockets_are_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::choose(Some(dir.path().to_owned())).unwrap();
        let _lock = state.lock().unwrap();
        for name in ["a.sock", "a.log", "NO.sock", "x"] {
            fs::write(dir.path().join("workers").join(name), "").unwrap();
        }
        assert_eq!(state.worker_sockets(), ["a".parse().unwrap()]);
    }
}
