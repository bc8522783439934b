//! Requests that make, remove and rename.

use rustix::io::Errno;

use super::handles::Open;
use super::look::shown;
use super::{Session, Spot};
use crate::access::Level;
use crate::fuse::{Header, Reply};
use crate::space::OpenFile;
use crate::space::beneath::{Facts, Kind};

/// `RENAME_NOREPLACE`, the only flag of a rename.
const KEEP: u32 = 1;
/// `O_EXCL` in a guest.
const EXCLUSIVE: u32 = 0o200;

impl Session {
    /// A directory in which something is to be changed.
    fn folder(&mut self, node: u64) -> Result<Spot, Errno> {
        let spot = self.in_space(node)?.allow(Level::Write)?;
        self.check(node, &spot)?;
        Ok(spot)
    }

    /// Tells of what was made in a directory.
    fn made(
        &mut self,
        header: &Header,
        name: &[u8],
        spot: &Spot,
        facts: &Facts,
    ) -> Result<(u64, Reply), Errno> {
        let node = self.nodes.looked_up(header.node, name, facts.identity)?;
        Ok((node, Reply::entry(node, &shown(facts, spot.level, header))))
    }

    pub(super) fn make_folder(
        &mut self,
        header: &Header,
        name: &[u8],
        mode: u32,
    ) -> Result<Reply, Errno> {
        let spot = self.folder(header.node)?;
        let quota = self.quota(&spot.space);
        let facts = spot.space.make_folder(&spot.place(), name, mode, quota)?;
        self.made(header, name, &spot, &facts).map(|(_, reply)| reply)
    }

    pub(super) fn make_link(
        &mut self,
        header: &Header,
        name: &[u8],
        target: &[u8],
    ) -> Result<Reply, Errno> {
        let spot = self.folder(header.node)?;
        let quota = self.quota(&spot.space);
        let facts = spot.space.make_link(&spot.place(), name, target, quota)?;
        self.made(header, name, &spot, &facts).map(|(_, reply)| reply)
    }

    /// Makes an empty file; devices, pipes and sockets are not made.
    pub(super) fn make_node(
        &mut self,
        header: &Header,
        name: &[u8],
        mode: u32,
    ) -> Result<Reply, Errno> {
        const KIND: u32 = 0o170_000;
        if mode & KIND != Kind::File.mode() {
            return Err(Errno::PERM);
        }
        let spot = self.folder(header.node)?;
        let (_, facts) = self.make_file(&spot, name, mode)?;
        self.made(header, name, &spot, &facts).map(|(_, reply)| reply)
    }

    fn make_file(&self, spot: &Spot, name: &[u8], mode: u32) -> Result<(OpenFile, Facts), Errno> {
        spot.space.make_file(&spot.place(), name, mode, self.quota(&spot.space))
    }

    /// Makes a file and opens it; unless it must be new, opens one that is there.
    pub(super) fn create(
        &mut self,
        header: &Header,
        name: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<Reply, Errno> {
        self.handles.room()?;
        let (read, write) = super::data::direction(flags)?;
        let spot = self.folder(header.node)?;
        let (file, facts) = match self.make_file(&spot, name, mode) {
            Err(Errno::EXIST) if flags & EXCLUSIVE == 0 => {
                let mut place = spot.place();
                place.push(name);
                let (file, facts) = spot.space.open_file(&place, true)?;
                self.truncate(&file, &facts, flags)?;
                (file, facts)
            }
            made => made?,
        };
        let (node, reply) = self.made(header, name, &spot, &facts)?;
        let open = Open::File { file, read, write };
        Ok(reply.opened(self.handles.add(node, open)?))
    }

    pub(super) fn remove(&mut self, node: u64, name: &[u8], folder: bool) -> Result<Reply, Errno> {
        let spot = self.folder(node)?;
        spot.space.remove(&spot.place(), name, folder)?;
        self.nodes.detach(node, name);
        Ok(Reply::empty())
    }

    pub(super) fn rename(
        &mut self,
        (node, name): (u64, &[u8]),
        (new_node, new_name): (u64, &[u8]),
        flags: u32,
    ) -> Result<Reply, Errno> {
        if flags & !KEEP != 0 {
            return Err(Errno::INVAL);
        }
        let (from, to) = (self.folder(node)?, self.folder(new_node)?);
        if from.space.name() != to.space.name() {
            return Err(Errno::XDEV);
        }
        let keep = flags & KEEP != 0;
        from.space.rename((&from.place(), name), (&to.place(), new_name), keep)?;
        self.nodes.moved((node, name), (new_node, new_name));
        Ok(Reply::empty())
    }
}
