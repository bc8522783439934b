//! The nodes of a session: which numbers the guest's kernel has for which places.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::fuse::ROOT;
use crate::names::MAX_DEPTH;
use crate::space::beneath::Identity;

/// Nodes at once; about 200 bytes each.
pub(super) const MAX_NODES: usize = 65_536;

/// A place that the kernel knows: a name in the place of another node.
#[derive(Debug)]
struct Node {
    parent: u64,
    name: Box<[u8]>,
    identity: Identity,
    /// Lookups that the kernel has not forgotten.
    lookups: u64,
    /// Nodes whose parent this is.
    children: u32,
    /// Nothing else has taken its place since.
    attached: bool,
}

/// The table of nodes. The root is the kernel's from the start; all others begin at
/// a number that no other session had.
#[derive(Debug)]
// Invariants: a node's parent is in the table; it counts its children; a place has
// one attached node; every node has lookups or children.
pub(super) struct Nodes {
    next: u64,
    nodes: HashMap<u64, Node>,
    places: HashMap<(u64, Box<[u8]>), u64>,
}

/// The names of a place from the root of all spaces: the first is the space's.
pub(super) type Names = Vec<Box<[u8]>>;

impl Nodes {
    pub(super) fn new(first: u64) -> Self {
        let next = first.max(ROOT + 1);
        Self { next, nodes: HashMap::new(), places: HashMap::new() }
    }

    /// The names of a node's place, also of one that has lost it.
    ///
    /// # Errors
    /// `ESTALE` for a number that is none of this session, or if something else is
    /// where its parent was.
    pub(super) fn names(&self, id: u64) -> Result<Names, Errno> {
        let mut names = Names::new();
        let mut at = id;
        while at != ROOT {
            let node = self.nodes.get(&at).ok_or(Errno::STALE)?;
            let lost = at != id && !node.attached;
            // One name more: the space's.
            if lost || names.len() > MAX_DEPTH {
                return Err(Errno::STALE);
            }
            names.push(node.name.clone());
            at = node.parent;
        }
        names.reverse();
        Ok(names)
    }

    /// What was there when it was looked up.
    pub(super) fn identity(&self, id: u64) -> Result<Identity, Errno> {
        self.nodes.get(&id).map(|node| node.identity).ok_or(Errno::STALE)
    }

    /// Whether something else is at its place now, or nothing.
    pub(super) fn is_detached(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| !node.attached)
    }

    /// Counts a lookup of `name` in `parent`, where `identity` was found; returns the
    /// node.
    ///
    /// # Errors
    /// `ENFILE` when there are too many.
    pub(super) fn looked_up(
        &mut self,
        parent: u64,
        name: &[u8],
        identity: Identity,
    ) -> Result<u64, Errno> {
        let place = (parent, Box::from(name));
        if let Some(id) = self.places.get(&place).copied() {
            let node = self.nodes.get_mut(&id).ok_or(Errno::IO)?;
            if node.identity == identity {
                node.lookups = node.lookups.saturating_add(1);
                return Ok(id);
            }
            self.detach(parent, name);
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(Errno::NFILE);
        }
        let id = self.next;
        self.next = self.next.checked_add(1).ok_or(Errno::NFILE)?;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children += 1;
        } else if parent != ROOT {
            return Err(Errno::STALE);
        }
        let name = place.1.clone();
        let node = Node { parent, name, identity, lookups: 1, children: 0, attached: true };
        self.nodes.insert(id, node);
        self.places.insert(place, id);
        Ok(id)
    }

    /// Nothing is at that place any more, or something new.
    pub(super) fn detach(&mut self, parent: u64, name: &[u8]) {
        if let Some(id) = self.places.remove(&(parent, Box::from(name)))
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.attached = false;
        }
    }

    /// What was at one place is at another, with all that is in it.
    pub(super) fn moved(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) {
        if from == to {
            return;
        }
        self.detach(to.0, to.1);
        let Some(id) = self.places.remove(&(from.0, Box::from(from.1))) else { return };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.parent = to.0;
        node.name = Box::from(to.1);
        self.places.insert((to.0, Box::from(to.1)), id);
        if let Some(parent) = self.nodes.get_mut(&to.0) {
            parent.children += 1;
        }
        self.child_left(from.0);
    }

    /// The kernel forgets `count` of a node's lookups.
    pub(super) fn forget(&mut self, id: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(count);
            self.collect(id);
        }
    }

    fn child_left(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.children = node.children.saturating_sub(1);
            self.collect(id);
        }
    }

    /// Drops a node that nobody needs, and its parents if it was the last need.
    fn collect(&mut self, mut id: u64) {
        while let Some(node) = self.nodes.get(&id) {
            if node.lookups > 0 || node.children > 0 {
                return;
            }
            let Some(node) = self.nodes.remove(&id) else { return };
            if node.attached {
                self.places.remove(&(node.parent, node.name));
            }
            id = node.parent;
            if let Some(parent) = self.nodes.get_mut(&id) {
                parent.children = parent.children.saturating_sub(1);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::beneath::Facts;

    fn identities() -> (Identity, Identity) {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let of = |folder: &tempfile::TempDir| {
            Facts::of(std::fs::File::open(folder.path()).unwrap()).unwrap().identity
        };
        (of(&folders[0]), of(&folders[1]))
    }

    #[test]
    fn nodes_live_as_long_as_they_are_needed() {
        let (one, _) = identities();
        let mut nodes = Nodes::new(100);
        let space = nodes.looked_up(ROOT, b"alice", one).unwrap();
        let file = nodes.looked_up(space, b"f", one).unwrap();
        assert_eq!(nodes.looked_up(space, b"f", one), Ok(file));
        assert_eq!(nodes.names(file).unwrap(), [Box::from(&b"alice"[..]), Box::from(&b"f"[..])]);
        nodes.forget(space, u64::MAX);
        assert_eq!(nodes.len(), 2, "the file needs its space");
        nodes.forget(file, 1);
        assert_eq!(nodes.len(), 2);
        nodes.forget(file, 1);
        assert_eq!(nodes.len(), 0);
        assert!(nodes.places.is_empty());
        assert_eq!(nodes.names(file), Err(Errno::STALE));
        nodes.forget(ROOT, 5);
        assert_eq!(nodes.names(ROOT), Ok(Names::new()));
    }

    #[test]
    fn another_file_at_the_place_is_another_node() {
        let (one, two) = identities();
        let mut nodes = Nodes::new(100);
        let space = nodes.looked_up(ROOT, b"alice", one).unwrap();
        let old = nodes.looked_up(space, b"d", one).unwrap();
        let inner = nodes.looked_up(old, b"x", one).unwrap();
        let new = nodes.looked_up(space, b"d", two).unwrap();
        assert_ne!(old, new);
        assert!(nodes.is_detached(old) && !nodes.is_detached(new));
        assert_eq!(nodes.names(inner), Err(Errno::STALE), "its parent is gone");
        nodes.forget(old, 1);
        nodes.forget(inner, 1);
        assert_eq!(nodes.looked_up(space, b"d", two), Ok(new));
    }

    #[test]
    fn a_move_takes_along_what_is_inside() {
        let (one, two) = identities();
        let mut nodes = Nodes::new(100);
        let space = nodes.looked_up(ROOT, b"alice", one).unwrap();
        let folder = nodes.looked_up(space, b"d", one).unwrap();
        let inner = nodes.looked_up(folder, b"x", one).unwrap();
        let target = nodes.looked_up(space, b"t", two).unwrap();
        nodes.moved((space, b"d"), (space, b"t"));
        assert!(nodes.is_detached(target));
        assert_eq!(nodes.names(inner).unwrap().join(&b'/'), b"alice/t/x");
        nodes.moved((folder, b"x"), (space, b"y"));
        nodes.forget(folder, 1);
        nodes.forget(inner, 1);
        nodes.forget(target, 1);
        nodes.forget(space, 1);
        assert_eq!((nodes.len(), nodes.places.len()), (0, 0));
    }
}
