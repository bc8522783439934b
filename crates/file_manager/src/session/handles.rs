//! What a session's guest has open.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::space::OpenFile;

/// Files and directories open at once.
pub(super) const MAX_HANDLES: usize = 1024;

/// Something open.
pub(super) struct Handle {
    /// The node it was opened by. The rights at its place decide, at every use.
    pub(super) node: u64,
    pub(super) open: Open,
}

/// What it is.
pub(super) enum Open {
    /// A file, for reading and, if `write`, writing.
    File { file: OpenFile, read: bool, write: bool },
    /// A directory.
    Folder(OpenFile),
    /// A directory that exists in the table only: the root.
    Spaces,
}

/// The table of handles, with numbers that no other session had.
pub(super) struct Handles {
    next: u64,
    handles: HashMap<u64, Handle>,
}

impl Handles {
    pub(super) fn new(first: u64) -> Self {
        Self { next: first, handles: HashMap::new() }
    }

    /// Whether one more can be open.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(super) fn room(&self) -> Result<(), Errno> {
        if self.handles.len() < MAX_HANDLES { Ok(()) } else { Err(Errno::MFILE) }
    }

    pub(super) fn add(&mut self, node: u64, open: Open) -> Result<u64, Errno> {
        self.room()?;
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.handles.insert(id, Handle { node, open });
        Ok(id)
    }

    pub(super) fn get(&self, id: u64) -> Result<&Handle, Errno> {
        self.handles.get(&id).ok_or(Errno::BADF)
    }

    pub(super) fn remove(&mut self, id: u64) -> Result<(), Errno> {
        self.handles.remove(&id).map(drop).ok_or(Errno::BADF)
    }

    /// A file that is open by `node`, for one that has no place any more; one that
    /// can be written, if `write`.
    pub(super) fn of_node(&self, node: u64, write: bool) -> Option<&OpenFile> {
        let of_node = self.handles.values().filter(|handle| handle.node == node);
        let mut files = of_node.filter_map(|handle| match &handle.open {
            Open::File { file, write: writable, .. } if *writable || !write => Some(file),
            Open::Folder(file) if !write => Some(file),
            _ => None,
        });
        files.next()
    }
}
