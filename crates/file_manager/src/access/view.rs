//! The table as one session sees it.

use std::collections::{BTreeMap, BTreeSet};

use service_pool::{Group, UserId};

use super::{AccessTable, Quota, Right};
use crate::names::{SpaceName, SpacePath};

/// What a session may do at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Not even know of it.
    None,
    /// Pass through to what is granted further inside.
    Pass,
    /// Read.
    Read,
    /// Write.
    Write,
}

/// What a session can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    spaces: BTreeMap<SpaceName, Reach>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Reach {
    /// Granted directories; the empty path is the space.
    granted: Vec<(SpacePath, Right)>,
    quota: Option<Quota>,
}

impl View {
    /// What `user`, who is of `groups`, can reach.
    pub(crate) fn new(table: &AccessTable, user: &UserId, groups: &[Group]) -> Self {
        let mut spaces = BTreeMap::new();
        for (name, entry) in table.spaces() {
            let granted = entry.grants.iter().filter(|grant| grant.to.covers(user, groups));
            let mut granted: Vec<_> =
                granted.map(|grant| (grant.path.clone(), grant.right)).collect();
            if entry.owner.as_ref() == Some(user) {
                granted.push((SpacePath::default(), Right::Write));
            }
            if !granted.is_empty() {
                spaces.insert(name.clone(), Reach { granted, quota: entry.quota });
            }
        }
        Self { spaces }
    }

    /// What may be done at the place with these names in `space`.
    pub(crate) fn level<N: AsRef<[u8]>>(&self, space: &SpaceName, names: &[N]) -> Level {
        let Some(reach) = self.spaces.get(space) else { return Level::None };
        let at = |(path, right): &(SpacePath, Right)| {
            let shared = path.names().iter().zip(names);
            let along = shared.clone().all(|(granted, name)| granted.as_bytes() == name.as_ref());
            match (along, path.names().len() <= names.len()) {
                (false, _) => Level::None,
                (true, false) => Level::Pass,
                (true, true) if *right == Right::Write => Level::Write,
                (true, true) => Level::Read,
            }
        };
        reach.granted.iter().map(at).max().unwrap_or(Level::None)
    }

    /// The names in the place with these names by which something granted is
    /// reached, in order.
    pub(crate) fn ways<N: AsRef<[u8]>>(&self, space: &SpaceName, names: &[N]) -> BTreeSet<&str> {
        let granted = self.spaces.get(space).into_iter().flat_map(|reach| &reach.granted);
        let next = granted.filter_map(|(path, _)| {
            let (along, further) = path.names().split_at_checked(names.len())?;
            let same = along.iter().zip(names).all(|(a, b)| a.as_bytes() == b.as_ref());
            further.first().filter(|_| same).map(String::as_str)
        });
        next.collect()
    }

    /// The spaces that can be reached, in order.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = &SpaceName> {
        self.spaces.keys()
    }

    /// The bounds of a space, if it has its own.
    pub(crate) fn quota(&self, space: &SpaceName) -> Option<Quota> {
        self.spaces.get(space).and_then(|reach| reach.quota)
    }
}
