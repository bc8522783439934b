//! Requests on what is open: reads, writes, listings.

use std::mem::MaybeUninit;

use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::Errno;

use super::handles::Open;
use super::{At, Session, Spot};
use crate::access::Level;
use crate::fuse::{Listing, MAX_DATA, Reply};
use crate::names::SpaceName;
use crate::space::OpenFile;
use crate::space::beneath::{Facts, Kind};

/// `O_ACCMODE` and its values, `O_TRUNC`: in a guest.
const ACCESS_MODE: u32 = 3;
const TRUNCATE: u32 = 0o1000;
/// `FUSE_UNKNOWN_INO`: a listing need not know a number.
const UNKNOWN: u64 = u32::MAX as u64;

/// Whether an open is for reading and for writing.
pub(super) fn direction(flags: u32) -> Result<(bool, bool), Errno> {
    match flags & ACCESS_MODE {
        0 => Ok((true, false)),
        1 => Ok((false, true)),
        2 => Ok((true, true)),
        _ => Err(Errno::INVAL),
    }
}

impl Session {
    pub(super) fn open(&mut self, node: u64, flags: u32) -> Result<Reply, Errno> {
        self.handles.room()?;
        let (read, write) = direction(flags)?;
        let change = write || flags & TRUNCATE != 0;
        let spot = self.in_space(node)?;
        let spot = spot.allow(if change { Level::Write } else { Level::Read })?;
        let (file, facts) = self.open_node(node, &spot, change)?;
        if facts.identity.kind != Kind::File {
            return Err(Errno::ISDIR);
        }
        self.truncate(&file, &facts, flags)?;
        Ok(Reply::empty().opened(self.handles.add(node, Open::File { file, read, write })?))
    }

    /// Opens what is at a node's place, which has to be what was looked up.
    fn open_node(&self, node: u64, spot: &Spot, write: bool) -> Result<(OpenFile, Facts), Errno> {
        let opened = spot.space.open_file(&spot.place(), write);
        match opened {
            Ok((_, facts)) if facts.identity != self.nodes.identity(node)? => Err(Errno::STALE),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Errno::STALE),
            opened => opened,
        }
    }

    pub(super) fn truncate(&self, file: &OpenFile, facts: &Facts, flags: u32) -> Result<(), Errno> {
        if flags & TRUNCATE == 0 || facts.identity.kind != Kind::File {
            return Ok(());
        }
        file.set_size(0, self.quota(file.space()))
    }

    pub(super) fn read(&mut self, handle: u64, offset: u64, size: usize) -> Result<Reply, Errno> {
        let node = self.handles.get(handle)?.node;
        let spot = self.in_space(node)?.allow(Level::Read)?;
        match &self.handles.get(handle)?.open {
            Open::File { file, read: true, .. } => {
                self.still_there(node, &spot, file)?;
                Ok(Reply::bytes(&file.read(offset, size.min(MAX_DATA))?))
            }
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn write(
        &mut self,
        handle: u64,
        (offset, append): (u64, bool),
        data: &[u8],
    ) -> Result<Reply, Errno> {
        let node = self.handles.get(handle)?.node;
        let spot = self.in_space(node)?.allow(Level::Write)?;
        match &self.handles.get(handle)?.open {
            Open::File { file, write: true, .. } => {
                self.still_there(node, &spot, file)?;
                let quota = self.quota(file.space());
                let written = file.write(offset, data, append, quota)?;
                Ok(Reply::written(u32::try_from(written).map_err(|_| Errno::IO)?))
            }
            _ => Err(Errno::BADF),
        }
    }

    pub(super) fn sync(&mut self, handle: u64, data_only: bool) -> Result<Reply, Errno> {
        let synced = match &self.handles.get(handle)?.open {
            Open::File { file, .. } | Open::Folder(file) => file.sync(data_only),
            Open::Spaces => Ok(()),
        };
        synced.map(|()| Reply::empty())
    }

    pub(super) fn open_folder(&mut self, node: u64) -> Result<Reply, Errno> {
        self.handles.room()?;
        let open = match self.at(node)? {
            At::Root => Open::Spaces,
            At::Space(spot) => {
                let (file, facts) = self.open_node(node, &spot, false)?;
                if facts.identity.kind != Kind::Folder {
                    return Err(Errno::NOTDIR);
                }
                Open::Folder(file)
            }
        };
        Ok(Reply::empty().opened_folder(self.handles.add(node, open)?))
    }

    pub(super) fn read_folder(
        &mut self,
        handle: u64,
        offset: u64,
        room: usize,
    ) -> Result<Reply, Errno> {
        let node = self.handles.get(handle)?.node;
        let at = self.at(node)?;
        let mut listing = Listing::new(room);
        match (&at, &self.handles.get(handle)?.open) {
            (At::Root, Open::Spaces) => {
                list_names(&mut listing, offset, self.view.spaces().map(SpaceName::as_str));
            }
            (At::Space(spot), Open::Folder(file)) if spot.level == Level::Pass => {
                self.still_there(node, spot, file)?;
                let ways = self.view.ways(spot.space.name(), &spot.names);
                let there = |name: &&str| {
                    let mut place = spot.place();
                    place.push(name.as_bytes());
                    spot.space.look(&place).is_ok_and(|facts| facts.identity.kind == Kind::Folder)
                };
                list_names(&mut listing, offset, ways.into_iter().filter(there));
            }
            (At::Space(spot), Open::Folder(file)) => {
                self.still_there(node, spot, file)?;
                list(&mut listing, offset, file)?;
            }
            _ => return Err(Errno::BADF),
        }
        Ok(listing.into_reply())
    }
}

/// Lists directories of which only the names are known, from the one at `offset` on.
fn list_names<'a>(listing: &mut Listing, offset: u64, names: impl Iterator<Item = &'a str>) {
    let kind = entry_kind(Kind::Folder);
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    for (index, name) in names.enumerate().skip(from) {
        if !listing.add(UNKNOWN, index as u64 + 1, kind, name.as_bytes()) {
            return;
        }
    }
}

/// Lists what the host has in an open directory, from its own mark `offset` on.
fn list(listing: &mut Listing, offset: u64, folder: &OpenFile) -> Result<(), Errno> {
    if i64::try_from(offset).is_err() {
        return Err(Errno::INVAL);
    }
    rustix::fs::seek(folder.as_fd(), SeekFrom::Start(offset))?;
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let kind = match entry.file_type() {
            FileType::Unknown => look(folder, name),
            kind => Kind::of_type(kind),
        };
        let Some(kind) = kind else { continue };
        if !listing.add(entry.ino(), entry.next_entry_cookie(), entry_kind(kind), name) {
            return Ok(());
        }
    }
    Ok(())
}

fn look(folder: &OpenFile, name: &[u8]) -> Option<Kind> {
    let entry = crate::space::beneath::handle(folder.as_fd(), &[name]).and_then(Facts::of);
    entry.ok().map(|facts| facts.identity.kind)
}

/// `DT_*`.
fn entry_kind(kind: Kind) -> u32 {
    kind.mode() >> 12
}
