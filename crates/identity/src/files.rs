//! Small private files: only their owner may read them, and they are replaced
//! as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file of users or keys cannot be used. The host's operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read it.
    #[error("{} can be used by others than its owner; run chmod 600 on it", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than such a file can be.
    #[error("{} is longer than {most} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most it may have.
        most: u64,
    },
}

fn refused<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError::Io { what, path: path.to_owned(), source }
}

/// The text of a private file of at most `most` bytes.
///
/// # Errors
/// [`FileError`] when it cannot be read, is not private or is longer.
pub fn read_private(path: &Path, most: u64) -> Result<String, FileError> {
    let file = File::open(path).map_err(refused("open", path))?;
    let mode = file.metadata().map_err(refused("examine", path))?.mode();
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(refused("read", path))?;
    if text.len() as u64 > most {
        return Err(FileError::TooLong { path: path.to_owned(), most });
    }
    Ok(text)
}

/// Puts `text` in the place of the file, or leaves the old one.
///
/// # Errors
/// [`FileError`] when it cannot be written.
pub fn replace_private(path: &Path, text: &str) -> Result<(), FileError> {
    let new = write_beside(path, text)?;
    let done = fs::rename(&new, path).map_err(refused("replace", path));
    if done.is_err() {
        // Only tidying; what matters is told already.
        drop(fs::remove_file(&new));
    }
    done?;
    sync_directory(path)
}

/// Makes the file with `text` unless it is there; true if it was made.
pub(crate) fn create_private(path: &Path, text: &str) -> Result<bool, FileError> {
    let new = write_beside(path, text)?;
    // A link, unlike a rename, never replaces: of two hosts one wins.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new).map_err(refused("remove", &new))?;
    match linked {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused("create", path)(error)),
    }
}

fn write_beside(path: &Path, text: &str) -> Result<PathBuf, FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(name);
    // One that a killed process of this id left behind would be in the way.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(refused("remove", &new)(error));
        }
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut file = file.map_err(refused("create", &new))?;
    file.write_all(text.as_bytes()).map_err(refused("write", &new))?;
    file.sync_all().map_err(refused("write", &new))?;
    Ok(new)
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(refused("write", parent))
}
