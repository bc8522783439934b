//! One builder at a time per cache.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::error::{At, BuildError};
use crate::progress::Progress;

/// Held while building; released when dropped or when the process ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the cache's lock, saying so, and clears away what an
    /// interrupted build left in `dirs`.
    pub(crate) fn take(
        cache: &Path,
        dirs: &[&Path],
        progress: &dyn Progress,
    ) -> Result<Self, BuildError> {
        fs::create_dir_all(cache).at(cache)?;
        let path = cache.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .at(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is for the message only.
                let _ = file.read_to_string(&mut holder);
                progress.notice(&format!(
                    "waiting for another image build in {} (process {})",
                    cache.display(),
                    holder.trim()
                ));
                file.lock().at(&path)?;
            }
            Err(TryLockError::Error(error)) => return Err(BuildError::io(&path, error)),
        }
        file.set_len(0).and_then(|()| file.rewind()).at(&path)?;
        writeln!(file, "{}", std::process::id()).at(&path)?;
        for dir in dirs {
            remove_leftovers(dir);
        }
        Ok(Self { _file: file })
    }
}

/// Removes the staging directories of builds that were interrupted. What
/// cannot be removed is in nobody's way.
fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".building-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Phase, Silent};
    use std::sync::mpsc;

    struct Told(mpsc::Sender<String>);
    impl Progress for Told {
        fn phase(&self, _: Phase) {}
        fn advance(&self, _: u64, _: u64) {}
        fn notice(&self, message: &str) {
            self.0.send(message.to_owned()).unwrap();
        }
    }

    #[test]
    fn a_second_builder_says_whom_it_waits_for_and_then_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), &[], &Silent).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(dir.path(), &[], &Told(sender)).is_ok());
            let message = receiver.recv().unwrap();
            assert!(message.contains(&std::process::id().to_string()), "{message}");
            drop(first);
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn leftovers_go_and_finished_things_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".building-abc", "finished"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Lock::take(dir.path(), &[dir.path()], &Silent).unwrap();
        assert!(!dir.path().join(".building-abc").exists());
        assert!(dir.path().join("finished").exists());
    }
}
