//! The guest's side of a session, for tests and fuzzing: it writes requests as a
//! guest's kernel does, or as a hostile guest might.
#![expect(clippy::expect_used, reason = "a test helper: what cannot go on fails the test")]

mod exercise;

use std::sync::Arc;

pub use exercise::exercise;
use service_pool::{Group, UserId};

use crate::{FileManager, MAX_REPLY, Quota, REPLY_HEADER, REQUEST_HEADER, Session};

/// The root's node.
pub const ROOT: u64 = 1;
/// What a kernel's process is in a guest.
const UID: u32 = 1000;

/// `FUSE_*` of requests.
#[expect(missing_docs, reason = "they are the kernel's names")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const SETXATTR: u32 = 21;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const RENAME2: u32 = 45;
}

/// An error number, as the guest's program gets it.
pub type Failed = i32;

/// A file manager of spaces in a directory of its own.
pub struct World {
    /// All of it, and what is around the spaces.
    pub folder: tempfile::TempDir,
    /// The file manager.
    pub manager: Arc<FileManager>,
}

impl World {
    /// One whose spaces have that quota.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let manager = Self::manager_of(folder.path(), quota);
        Self { folder, manager }
    }

    /// A file manager as it is when it comes back.
    #[must_use]
    pub fn manager_of(folder: &std::path::Path, quota: Quota) -> Arc<FileManager> {
        let spaces = folder.join("spaces");
        let manager = FileManager::open(&spaces, &folder.join("access.json"), quota);
        Arc::new(manager.expect("a manager"))
    }

    /// A session of a user, who is welcome.
    #[must_use]
    pub fn kernel(&self, user: &str, groups: &[&str]) -> Kernel {
        let user = UserId::new(user).expect("an id");
        self.manager.welcome(&user).expect("a space");
        let groups = groups.iter().map(|name| Group::new(name).expect("a group")).collect();
        Kernel::new(Arc::clone(&self.manager), Some((user, groups)))
    }
}

/// A guest's kernel with a session of its own.
pub struct Kernel {
    /// The session.
    pub session: Session,
    unique: u64,
}

impl Kernel {
    /// A kernel that was captured: it has negotiated, and the session has not.
    #[must_use]
    pub fn new(manager: Arc<FileManager>, who: Option<(UserId, Vec<Group>)>) -> Self {
        Self { session: Session::new(manager, who).expect("a session"), unique: 0 }
    }

    /// The bytes of a request.
    #[must_use]
    pub fn request(opcode: u32, unique: u64, node: u64, arguments: &[&[u8]]) -> Vec<u8> {
        let arguments = arguments.concat();
        let length = (REQUEST_HEADER + arguments.len()) as u32;
        let mut bytes = [length, opcode].map(u32::to_le_bytes).concat();
        bytes.extend([unique, node].map(u64::to_le_bytes).concat());
        bytes.extend([UID, UID, 1, 0].map(u32::to_le_bytes).concat());
        bytes.extend(arguments);
        bytes
    }

    /// Asks, and gets what follows the reply's header.
    ///
    /// # Errors
    /// The error number of the reply.
    pub fn ask(&mut self, opcode: u32, node: u64, arguments: &[&[u8]]) -> Result<Vec<u8>, Failed> {
        self.unique += 1;
        let request = Self::request(opcode, self.unique, node, arguments);
        let reply = self.session.answer(&request, MAX_REPLY);
        let header = reply.get(..REPLY_HEADER).expect("a reply");
        assert_eq!(header[..4], (reply.len() as u32).to_le_bytes(), "its length is true");
        assert_eq!(header[8..], self.unique.to_le_bytes(), "it is this request's");
        let error = i32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if error == 0 { Ok(reply[REPLY_HEADER..].to_vec()) } else { Err(-error) }
    }

    /// Looks a name up.
    ///
    /// # Errors
    /// The error number of the reply, here and in all others.
    pub fn look_up(&mut self, folder: u64, name: &str) -> Result<u64, Failed> {
        self.ask(opcode::LOOKUP, folder, &[&text(name)]).map(|entry| u64_at(&entry, 0))
    }

    /// Walks to a place from the root.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn walk(&mut self, path: &str) -> Result<u64, Failed> {
        path.split('/').try_fold(ROOT, |folder, name| self.look_up(folder, name))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn make_folder(&mut self, folder: u64, name: &str) -> Result<u64, Failed> {
        let mode = [0o755_u32, 0].map(u32::to_le_bytes).concat();
        self.ask(opcode::MKDIR, folder, &[&mode, &text(name)]).map(|entry| u64_at(&entry, 0))
    }

    /// Makes a file and opens it; its node and handle.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn create(&mut self, folder: u64, name: &str) -> Result<(u64, u64), Failed> {
        let arguments = [0o102_u32, 0o644, 0, 0].map(u32::to_le_bytes).concat();
        let reply = self.ask(opcode::CREATE, folder, &[&arguments, &text(name)])?;
        Ok((u64_at(&reply, 0), u64_at(&reply, 128)))
    }

    /// Opens a file, with the flags of the system call.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn open(&mut self, node: u64, flags: u32) -> Result<u64, Failed> {
        let arguments = [flags, 0].map(u32::to_le_bytes).concat();
        self.ask(opcode::OPEN, node, &[&arguments]).map(|reply| u64_at(&reply, 0))
    }

    /// Reads from an open file.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn read(&mut self, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, Failed> {
        self.read_as(opcode::READ, handle, offset, size)
    }

    fn read_as(
        &mut self,
        opcode: u32,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, Failed> {
        let place = [handle, offset].map(u64::to_le_bytes).concat();
        let rest = [size, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
        self.ask(opcode, ROOT, &[&place, &rest])
    }

    /// Writes to an open file.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn write(&mut self, handle: u64, offset: u64, data: &[u8]) -> Result<u32, Failed> {
        let place = [handle, offset].map(u64::to_le_bytes).concat();
        let rest = [data.len() as u32, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
        let reply = self.ask(opcode::WRITE, ROOT, &[&place, &rest, data])?;
        Ok(u64_at(&reply, 0) as u32)
    }

    /// Removes a file, or an empty directory.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn remove(&mut self, folder: u64, name: &str, is_folder: bool) -> Result<(), Failed> {
        let opcode = if is_folder { opcode::RMDIR } else { opcode::UNLINK };
        self.ask(opcode, folder, &[&text(name)]).map(drop)
    }

    /// Renames.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn rename(&mut self, from: (u64, &str), to: (u64, &str)) -> Result<(), Failed> {
        let arguments = [&to.0.to_le_bytes()[..], &text(from.1), &text(to.1)];
        self.ask(opcode::RENAME, from.0, &arguments).map(drop)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn make_link(&mut self, folder: u64, name: &str, target: &str) -> Result<u64, Failed> {
        let entry = self.ask(opcode::SYMLINK, folder, &[&text(name), &text(target)]);
        entry.map(|entry| u64_at(&entry, 0))
    }

    /// Sets a file's size.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn set_size(&mut self, node: u64, size: u64) -> Result<(), Failed> {
        let mut arguments = vec![0; 88];
        arguments[..4].copy_from_slice(&8_u32.to_le_bytes());
        arguments[16..24].copy_from_slice(&size.to_le_bytes());
        self.ask(opcode::SETATTR, node, &[&arguments]).map(drop)
    }

    /// A file's size and mode.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn attributes(&mut self, node: u64) -> Result<(u64, u32), Failed> {
        let reply = self.ask(opcode::GETATTR, node, &[&[0; 16]])?;
        Ok((u64_at(&reply, 24), u64_at(&reply, 76) as u32))
    }

    /// The names in a directory, read in pieces of `room` bytes, without those of
    /// itself and its parent.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn list(&mut self, folder: u64, room: u32) -> Result<Vec<String>, Failed> {
        let handle = self.open_folder(folder)?;
        self.list_open(handle, room)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn open_folder(&mut self, folder: u64) -> Result<u64, Failed> {
        Ok(u64_at(&self.ask(opcode::OPENDIR, folder, &[&[0; 8]])?, 0))
    }

    /// The names in a directory that is open.
    ///
    /// # Errors
    /// As for a lookup.
    pub fn list_open(&mut self, handle: u64, room: u32) -> Result<Vec<String>, Failed> {
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let piece = self.read_as(opcode::READDIR, handle, offset, room)?;
            assert!(piece.len() <= room as usize, "no more than there is room for");
            if piece.is_empty() {
                break;
            }
            let mut at = 0;
            while at < piece.len() {
                let length = u64_at(&piece, at + 16) as u32 as usize;
                let name = &piece[at + 24..at + 24 + length];
                offset = u64_at(&piece, at + 8);
                names.push(String::from_utf8_lossy(name).into_owned());
                at += (24 + length).next_multiple_of(8);
            }
        }
        names.retain(|name| !matches!(name.as_str(), "." | ".."));
        names.sort();
        Ok(names)
    }
}

/// A text as it is in a request.
fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.expect("a whole reply"))
}
