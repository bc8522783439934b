//! A session: the file system of one machine, as long as one user has it.
//!
//! Requests go in, replies come out. Nothing is believed of what the guest's kernel
//! says but what it wants: nodes and handles have to be this session's, names are
//! checked, and the rights at the place are looked up for every request.

mod change;
mod data;
mod handles;
mod look;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::Errno;
use service_pool::{Group, UserId};

use crate::access::{Level, Quota, View};
use crate::fuse::{self, Body, Header, MAX_REPLY, MAX_REQUEST, REPLY_HEADER, ROOT, Reply};
use crate::manager::FileManager;
use crate::names::SpaceName;
use crate::space::beneath::Facts;
use crate::space::{OpenFile, Place, Space};
use handles::Handles;
use nodes::{Names, Nodes};

/// The file system of one machine. It needs no negotiation to begin with: the
/// guest's kernel may have had that before it was captured.
pub struct Session {
    manager: Arc<FileManager>,
    /// Nobody reaches nothing.
    who: Option<(UserId, Vec<Group>)>,
    /// Version of the table that `view` is of.
    version: u64,
    view: View,
    /// Spaces that were reached, so that their accounts are kept.
    spaces: HashMap<SpaceName, Arc<Space>>,
    nodes: Nodes,
    handles: Handles,
}

/// Where a node is.
enum At {
    /// The root, which lists the spaces.
    Root,
    /// In a space.
    Space(Spot),
}

/// A place in a space, and what the session may do there.
struct Spot {
    space: Arc<Space>,
    /// Names from the space's root.
    names: Names,
    level: Level,
}

impl Spot {
    /// The same, if the session may do at least that.
    fn allow(self, level: Level) -> Result<Self, Errno> {
        if self.level >= level { Ok(self) } else { Err(Errno::ACCESS) }
    }

    fn place(&self) -> Vec<&[u8]> {
        self.names.iter().map(AsRef::as_ref).collect()
    }
}

impl Session {
    /// A session of a user with groups, or of nobody.
    ///
    /// # Errors
    /// When the host has no random numbers.
    pub fn new(
        manager: Arc<FileManager>,
        who: Option<(UserId, Vec<Group>)>,
    ) -> Result<Self, std::io::Error> {
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let random = u128::from_le_bytes(random);
        // Far apart from the numbers of any other session, with room to count.
        let first = |random: u64| (random >> 8).max(2);
        Ok(Self {
            manager,
            who,
            version: 0,
            view: View::default(),
            spaces: HashMap::new(),
            nodes: Nodes::new(first(random as u64)),
            handles: Handles::new(first((random >> 64) as u64)),
        })
    }

    /// Answers `request`, for which there is `room` bytes. An answer without any
    /// bytes is none: the request has no reply, or is no request.
    pub fn answer(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let whole = request.get(..MAX_REQUEST.min(request.len())).unwrap_or_default();
        let Some((header, body)) = fuse::parse(whole) else { return Vec::new() };
        let room = room.min(MAX_REPLY);
        let done = match body {
            Some(Body::Forget(nodes)) => {
                nodes.iter().for_each(|(node, count)| self.nodes.forget(*node, *count));
                return Vec::new();
            }
            Some(Body::Interrupt) => return Vec::new(),
            Some(body) if room >= REPLY_HEADER && request.len() <= MAX_REQUEST => {
                self.refresh();
                self.execute(&header, body, room - REPLY_HEADER)
            }
            Some(_) | None => Err(Errno::INVAL),
        };
        let reply = match done {
            Ok(reply) => reply.finish(header.unique),
            Err(error) => fuse::failure(header.unique, error),
        };
        match (reply.len() <= room, room >= REPLY_HEADER) {
            (true, _) => reply,
            (false, true) => fuse::failure(header.unique, Errno::IO),
            (false, false) => Vec::new(),
        }
    }

    /// The file manager.
    #[cfg(any(test, feature = "test-utils"))]
    pub(crate) fn manager(&self) -> Arc<FileManager> {
        Arc::clone(&self.manager)
    }

    fn execute(&mut self, header: &Header, body: Body<'_>, room: usize) -> Result<Reply, Errno> {
        let node = header.node;
        match body {
            Body::Init { major, minor, read_ahead, flags } => {
                fuse::negotiation(major, minor, read_ahead, flags)
            }
            Body::Lookup { name } => self.look_up(header, name),
            Body::GetAttributes { handle } => self.attributes(header, handle),
            Body::SetAttributes(set) => self.set_attributes(header, &set),
            Body::ReadLink => self.read_link(node),
            Body::Totals => self.totals(node),
            Body::MakeLink { name, target } => self.make_link(header, name, target),
            Body::MakeNode { name, mode } => self.make_node(header, name, mode),
            Body::MakeFolder { name, mode } => self.make_folder(header, name, mode),
            Body::Remove { name, folder } => self.remove(node, name, folder),
            Body::Rename { name, folder, new_name, flags } => {
                self.rename((node, name), (folder, new_name), flags)
            }
            // One file in two places would have the rights of both.
            Body::HardLink => Err(Errno::PERM),
            Body::Open { flags } => self.open(node, flags),
            Body::Create { name, flags, mode } => self.create(header, name, flags, mode),
            Body::Read { handle, offset, size } => self.read(handle, offset, size.min(room)),
            Body::Write { handle, offset, append, data } => {
                self.write(handle, (offset, append), data)
            }
            Body::Sync { handle, data_only } => self.sync(handle, data_only),
            Body::OpenFolder => self.open_folder(node),
            Body::ReadFolder { handle, offset, size } => {
                self.read_folder(handle, offset, size.min(room))
            }
            Body::SyncFolder { handle } => self.sync(handle, false),
            Body::Release { handle } | Body::ReleaseFolder { handle } => {
                self.handles.remove(handle).map(|()| Reply::empty())
            }
            Body::Destroy => {
                self.end();
                Ok(Reply::empty())
            }
            Body::Unknown | Body::Forget(_) | Body::Interrupt => Err(Errno::NOSYS),
        }
    }

    /// Forgets all nodes and closes all files.
    fn end(&mut self) {
        if let Ok(new) = Self::new(Arc::clone(&self.manager), self.who.clone()) {
            *self = new;
        }
    }

    /// Sees the table as it is now.
    fn refresh(&mut self) {
        let Some((user, groups)) = &self.who else { return };
        if self.manager.version() != self.version {
            (self.version, self.view) = self.manager.view(user, groups);
            let view = &self.view;
            let none: [&[u8]; 0] = [];
            self.spaces.retain(|name, _| view.level(name, &none) > Level::None);
        }
    }

    /// Where a node is, and what the session may do there now.
    fn at(&mut self, node: u64) -> Result<At, Errno> {
        if node == ROOT {
            return Ok(At::Root);
        }
        let names = self.nodes.names(node)?;
        let (space, names) = names.split_first().ok_or(Errno::STALE)?;
        let name = space_name(space).ok_or(Errno::STALE)?;
        self.spot(&name, names.to_vec()).map(At::Space)
    }

    /// The same for a node that has to be in a space.
    fn in_space(&mut self, node: u64) -> Result<Spot, Errno> {
        match self.at(node)? {
            At::Space(spot) => Ok(spot),
            At::Root => Err(Errno::ACCESS),
        }
    }

    fn spot(&mut self, name: &SpaceName, names: Names) -> Result<Spot, Errno> {
        let level = self.view.level(name, &names);
        if level == Level::None {
            return Err(Errno::ACCESS);
        }
        let space = match self.spaces.get(name) {
            Some(space) => Arc::clone(space),
            None => {
                let space = self.manager.space(name)?;
                self.spaces.insert(name.clone(), Arc::clone(&space));
                space
            }
        };
        Ok(Spot { space, names, level })
    }

    fn quota(&self, space: &Space) -> Quota {
        self.view.quota(space.name()).unwrap_or(self.manager.default_quota())
    }

    /// What is open as a node is still where the session has its rights, or nowhere
    /// any more: somebody else may have moved it since.
    fn still_there(&self, node: u64, spot: &Spot, file: &OpenFile) -> Result<Facts, Errno> {
        let facts = file.facts()?;
        let whole: [&[u8]; 0] = [];
        let anywhere = self.view.level(spot.space.name(), &whole) >= spot.level;
        if !anywhere && facts.links > 0 {
            self.check(node, spot)?;
        }
        Ok(facts)
    }

    /// What is at the node's place is what was there when it was looked up.
    fn check(&self, node: u64, spot: &Spot) -> Result<(), Errno> {
        let place: Place<'_> = &spot.place();
        match spot.space.look(place) {
            Ok(facts) if facts.identity == self.nodes.identity(node)? => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(Errno::STALE),
            Err(error) => Err(error),
        }
    }
}

fn space_name(bytes: &[u8]) -> Option<SpaceName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
