//! The access identity table: which users and groups may reach which spaces.

mod file;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;

use identity::Subject;
use serde::{Deserialize, Serialize};
use service_pool::{NameError, UserId};

use crate::names::{SpaceName, SpacePath};
pub use file::TableFileError;
pub(crate) use view::{Level, View};

/// Most spaces.
pub const MAX_SPACES: usize = 100_000;
/// Most grants of one space.
pub const MAX_GRANTS: usize = 1000;

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To list, read and run.
    Read,
    /// That, and to change, make and remove.
    Write,
}

/// One grant, of a space or of a directory inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// To whom.
    pub to: Subject,
    /// Of what.
    #[serde(default)]
    pub path: SpacePath,
    /// What it allows.
    pub right: Right,
}

/// How much a space may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes in files and symbolic links, as their sizes say.
    pub bytes: u64,
    /// Files, directories and symbolic links.
    pub files: u64,
}

impl Default for Quota {
    /// 1 GiB in 100,000 files.
    fn default() -> Self {
        Self { bytes: 1 << 30, files: 100_000 }
    }
}

/// What the table says of a space.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceEntry {
    /// The user whose own it is; a named space has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "owner")]
    pub owner: Option<UserId>,
    /// How much it may hold, if not as much as any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Who else may reach it. Each subject has one grant of each path.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// The table cannot be changed so. Whoever asked is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// There is no such space.
    #[error("there is no space {0}")]
    NoSpace(SpaceName),
    /// A space of that name is there, and is not that user's own.
    #[error("the space {0} is there already, and is another's")]
    Taken(SpaceName),
    /// There is no such grant.
    #[error("{to} has no grant of {space}:{path}")]
    NoGrant {
        /// Who has not.
        to: Subject,
        /// In which space.
        space: SpaceName,
        /// Of what in it.
        path: SpacePath,
    },
    /// A bound is reached.
    #[error("there are {most} {what} already")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        most: usize,
    },
    /// A name is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Who may reach what. Pure: [`AccessTable::load`] and [`AccessTable::save`] alone
/// touch a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
// Private: the bounds hold, and no space has two grants of one path to a subject.
pub struct AccessTable(BTreeMap<SpaceName, SpaceEntry>);

impl AccessTable {
    /// Has a space `name`, the own of `owner` or nobody's; true if it was not
    /// there.
    ///
    /// # Errors
    /// [`AccessError`] when the space is another's or there are too many.
    pub fn add_space(
        &mut self,
        name: &SpaceName,
        owner: Option<&UserId>,
    ) -> Result<bool, AccessError> {
        if let Some(entry) = self.0.get(name) {
            let same = entry.owner.as_ref() == owner;
            return if same { Ok(false) } else { Err(AccessError::Taken(name.clone())) };
        }
        if self.0.len() >= MAX_SPACES {
            return Err(AccessError::TooMany { what: "spaces", most: MAX_SPACES });
        }
        let entry = SpaceEntry { owner: owner.cloned(), ..SpaceEntry::default() };
        self.0.insert(name.clone(), entry);
        Ok(true)
    }

    /// Grants, in the place of an earlier grant of the same to the same.
    ///
    /// # Errors
    /// [`AccessError`] when there is no such space or it has too many grants.
    pub fn grant(&mut self, space: &SpaceName, grant: Grant) -> Result<(), AccessError> {
        let grants = &mut self.entry(space)?.grants;
        let same = |other: &&mut Grant| other.to == grant.to && other.path == grant.path;
        if let Some(there) = grants.iter_mut().find(same) {
            *there = grant;
        } else if grants.len() < MAX_GRANTS {
            grants.push(grant);
        } else {
            return Err(AccessError::TooMany { what: "grants of a space", most: MAX_GRANTS });
        }
        Ok(())
    }

    /// Takes a grant back. What the subject has by others it keeps.
    ///
    /// # Errors
    /// [`AccessError`] when there is no such grant.
    pub fn revoke(
        &mut self,
        space: &SpaceName,
        to: &Subject,
        path: &SpacePath,
    ) -> Result<(), AccessError> {
        let grants = &mut self.entry(space)?.grants;
        let before = grants.len();
        grants.retain(|grant| grant.to != *to || grant.path != *path);
        if grants.len() == before {
            let (to, space, path) = (to.clone(), space.clone(), path.clone());
            return Err(AccessError::NoGrant { to, space, path });
        }
        Ok(())
    }

    /// Bounds what a space may hold; without a quota, as the default does.
    ///
    /// # Errors
    /// [`AccessError::NoSpace`].
    pub fn set_quota(
        &mut self,
        space: &SpaceName,
        quota: Option<Quota>,
    ) -> Result<(), AccessError> {
        self.entry(space)?.quota = quota;
        Ok(())
    }

    /// All spaces and what is said of them, by name.
    pub fn spaces(&self) -> impl Iterator<Item = (&SpaceName, &SpaceEntry)> {
        self.0.iter()
    }

    /// What is said of one.
    #[must_use]
    pub fn space(&self, name: &SpaceName) -> Option<&SpaceEntry> {
        self.0.get(name)
    }

    fn entry(&mut self, name: &SpaceName) -> Result<&mut SpaceEntry, AccessError> {
        self.0.get_mut(name).ok_or_else(|| AccessError::NoSpace(name.clone()))
    }
}

/// A user id that may be missing, as text.
mod owner {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use service_pool::UserId;

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(id: &Option<UserId>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(id),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<UserId>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| UserId::new(&text).map_err(D::Error::custom)).transpose()
    }
}
