//! Requests that look: what is there and how it is like. And the setting of that.

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::handles::Open;
use super::{At, Session, Spot, space_name};
use crate::access::Level;
use crate::fuse::{Attributes, Header, Moment, ROOT, Reply, Set, Totals};
use crate::space::OpenFile;
use crate::space::beneath::{Facts, Kind};

/// Attributes as the guest sees them: the file is the caller's, and may be changed
/// as far as the session may change it.
pub(super) fn shown(facts: &Facts, level: Level, header: &Header) -> Attributes {
    let permissions = match (facts.identity.kind, level) {
        (Kind::Link, _) => 0o777,
        (_, Level::Write) => facts.permissions,
        (_, Level::Read) => facts.permissions & 0o555,
        (_, Level::Pass | Level::None) => 0o555,
    };
    Attributes {
        inode: facts.identity.inode,
        size: facts.size,
        blocks: facts.blocks,
        accessed: facts.accessed,
        modified: facts.modified,
        changed: facts.changed,
        mode: facts.identity.kind.mode() | permissions,
        links: facts.links,
        uid: header.uid,
        gid: header.gid,
    }
}

/// The root's attributes.
fn root_shown(header: &Header) -> Attributes {
    Attributes {
        inode: ROOT,
        size: 0,
        blocks: 0,
        accessed: std::time::Duration::ZERO,
        modified: std::time::Duration::ZERO,
        changed: std::time::Duration::ZERO,
        mode: Kind::Folder.mode() | 0o555,
        links: 2,
        uid: header.uid,
        gid: header.gid,
    }
}

impl Session {
    pub(super) fn look_up(&mut self, header: &Header, name: &[u8]) -> Result<Reply, Errno> {
        if name.len() > crate::names::MAX_FILE_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        if !crate::names::is_file_name(name) {
            return Err(Errno::INVAL);
        }
        let spot = self.child(header.node, name)?;
        match spot.space.look(&spot.place()) {
            Ok(facts) => {
                let node = self.nodes.looked_up(header.node, name, facts.identity)?;
                Ok(Reply::entry(node, &shown(&facts, spot.level, header)))
            }
            Err(error) => {
                self.nodes.detach(header.node, name);
                Err(error)
            }
        }
    }

    /// The place `name` in a directory. One that must not be known is not there.
    fn child(&mut self, folder: u64, name: &[u8]) -> Result<Spot, Errno> {
        let hidden = |error| if error == Errno::ACCESS { Errno::NOENT } else { error };
        let At::Space(spot) = self.at(folder)? else {
            let space = space_name(name).ok_or(Errno::NOENT)?;
            return self.spot(&space, Vec::new()).map_err(hidden);
        };
        if self.nodes.is_detached(folder) {
            return Err(Errno::NOENT);
        }
        let mut names = spot.names;
        names.push(Box::from(name));
        if names.len() > crate::names::MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let space = spot.space.name().clone();
        self.spot(&space, names).map_err(hidden)
    }

    pub(super) fn attributes(
        &mut self,
        header: &Header,
        handle: Option<u64>,
    ) -> Result<Reply, Errno> {
        let At::Space(spot) = self.at(header.node)? else {
            return Ok(Reply::attributes_of(&root_shown(header)));
        };
        let facts = self.facts(header.node, &spot, handle)?;
        Ok(Reply::attributes_of(&shown(&facts, spot.level, header)))
    }

    /// What the host says of a node's file, also if that has no name any more and is
    /// only open.
    fn facts(&self, node: u64, spot: &Spot, handle: Option<u64>) -> Result<Facts, Errno> {
        if let Some(open) = handle.and_then(|handle| self.handles.get(handle).ok())
            && open.node == node
        {
            match &open.open {
                Open::File { file, .. } | Open::Folder(file) => {
                    return self.still_there(node, spot, file);
                }
                Open::Spaces => {}
            }
        }
        let identity = self.nodes.identity(node)?;
        if !self.nodes.is_detached(node)
            && let Ok(facts) = spot.space.look(&spot.place())
            && facts.identity == identity
        {
            return Ok(facts);
        }
        self.still_there(node, spot, self.handles.of_node(node, false).ok_or(Errno::STALE)?)
    }

    pub(super) fn set_attributes(&mut self, header: &Header, set: &Set) -> Result<Reply, Errno> {
        let node = header.node;
        let spot = self.in_space(node)?.allow(Level::Write)?;
        // All files are the caller's.
        let foreign = |id: Option<u32>, own: u32| id.is_some_and(|id| id != own);
        if foreign(set.uid, header.uid) || foreign(set.gid, header.gid) {
            return Err(Errno::PERM);
        }
        let facts = self.facts(node, &spot, set.handle)?;
        if facts.identity.kind == Kind::Link {
            if set.mode.is_some() || set.size.is_some() {
                return Err(Errno::OPNOTSUPP);
            }
            self.check(node, &spot)?;
            if let Some(times) = times(set) {
                spot.space.set_link_times(&spot.place(), &times)?;
            }
        } else if set.size.is_some() || set.mode.is_some() || times(set).is_some() {
            if facts.identity.kind == Kind::Folder && set.size.is_some() {
                return Err(Errno::ISDIR);
            }
            let quota = self.quota(&spot.space);
            self.with_file(node, &spot, set, |file| {
                set.size.map_or(Ok(()), |size| file.set_size(size, quota))?;
                set.mode.map_or(Ok(()), |mode| file.set_permissions(mode))?;
                times(set).map_or(Ok(()), |times| file.set_times(&times))
            })?;
        }
        let facts = self.facts(node, &spot, set.handle)?;
        Ok(Reply::attributes_of(&shown(&facts, spot.level, header)))
    }

    /// Does something with a node's file: one that is open already, or else opened
    /// for that.
    fn with_file<T>(
        &self,
        node: u64,
        spot: &Spot,
        set: &Set,
        change: impl FnOnce(&OpenFile) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let write = set.size.is_some();
        if let Some(file) = self.handles.of_node(node, write) {
            self.still_there(node, spot, file)?;
            return change(file);
        }
        let (file, facts) = spot.space.open_file(&spot.place(), write)?;
        if facts.identity != self.nodes.identity(node)? {
            return Err(Errno::STALE);
        }
        change(&file)
    }

    pub(super) fn read_link(&mut self, node: u64) -> Result<Reply, Errno> {
        let spot = self.in_space(node)?.allow(Level::Read)?;
        self.check(node, &spot)?;
        Ok(Reply::bytes(&spot.space.read_link(&spot.place())?))
    }

    pub(super) fn totals(&mut self, node: u64) -> Result<Reply, Errno> {
        let At::Space(spot) = self.at(node)? else { return Ok(Reply::totals(&Totals::default())) };
        let (used, quota) = (spot.space.usage(), self.quota(&spot.space));
        Ok(Reply::totals(&Totals {
            bytes: quota.bytes,
            bytes_free: quota.bytes.saturating_sub(used.bytes),
            files: quota.files,
            files_free: quota.files.saturating_sub(used.files),
        }))
    }
}

/// The times that are to be set, if any is.
fn times(set: &Set) -> Option<Timestamps> {
    let time = |moment: Option<Moment>| match moment {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(Moment::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(Moment::At(since)) => Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(0),
            tv_nsec: since.subsec_nanos().into(),
        },
    };
    let any = set.accessed.is_some() || set.modified.is_some();
    any.then(|| Timestamps {
        last_access: time(set.accessed),
        last_modification: time(set.modified),
    })
}
