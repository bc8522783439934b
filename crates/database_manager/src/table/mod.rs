//! The identity table: which user or group is which role of which database.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use identity::Subject;
use serde::{Deserialize, Serialize};
use service_pool::{Group, UserId};

use crate::names::SqlName;
pub use file::TableFileError;

/// Most rows.
pub const MAX_ROWS: usize = 100_000;
/// Most connections that a row can give a user.
pub const MAX_CONNECTIONS: u16 = 1000;

/// What a user or the users of a group are to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The database.
    pub database: SqlName,
    /// The role, which can log in and can become no other.
    pub role: SqlName,
    /// What the broker allows.
    #[serde(flatten)]
    pub limits: Limits,
}

/// What the broker allows a user by a row, whatever the role may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at once, in all of the user's machines together.
    pub connections: u16,
    /// Seconds for which nothing may be said in a connection; none: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<u32>,
    /// Seconds that a connection may last; none: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u32>,
}

impl Default for Limits {
    /// 16 connections, as long as their conversations.
    fn default() -> Self {
        Self { connections: 16, idle: None, lifetime: None }
    }
}

impl Limits {
    /// For how long nothing may be said.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// How long a connection may last.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.lifetime.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// The table cannot be changed so. Whoever asked is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is no row of this subject.
    #[error("{0} has no login; `berth database list` shows who has")]
    NoRow(Subject),
    /// There are too many rows.
    #[error("there are {MAX_ROWS} logins already; revoke one")]
    TooMany,
    /// A limit is out of its range.
    #[error("a login has 1 to {MAX_CONNECTIONS} connections; bounds of time are at least 1 s")]
    Limits,
}

/// Who is which role of which database. Pure: [`LoginTable::load`] and
/// [`LoginTable::save`] alone touch a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
// Private: the bounds hold.
pub struct LoginTable(BTreeMap<Subject, Login>);

impl LoginTable {
    /// Gives a login, in the place of what the subject had.
    ///
    /// # Errors
    /// [`TableError`] when a limit is out of range or there are too many rows.
    pub fn grant(&mut self, to: Subject, login: Login) -> Result<(), TableError> {
        let Limits { connections, idle, lifetime } = login.limits;
        if !(1..=MAX_CONNECTIONS).contains(&connections) || idle == Some(0) || lifetime == Some(0) {
            return Err(TableError::Limits);
        }
        if self.0.len() >= MAX_ROWS && !self.0.contains_key(&to) {
            return Err(TableError::TooMany);
        }
        self.0.insert(to, login);
        Ok(())
    }

    /// Takes a login back.
    ///
    /// # Errors
    /// [`TableError::NoRow`] when there is none.
    pub fn revoke(&mut self, from: &Subject) -> Result<(), TableError> {
        match self.0.remove(from) {
            Some(_) => Ok(()),
            None => Err(TableError::NoRow(from.clone())),
        }
    }

    /// What `user`, who is of `groups`, is: by the user's own row, or else by that
    /// of the first of the groups, by name, that has one.
    #[must_use]
    pub fn of(&self, user: &UserId, groups: &[Group]) -> Option<(&Subject, &Login)> {
        let own = self.0.get_key_value(&Subject::User(user.clone()));
        own.or_else(|| {
            let mut groups: Vec<_> = groups.iter().collect();
            groups.sort();
            let mut rows = groups.into_iter().map(|one| Subject::Group(one.clone()));
            rows.find_map(|subject| self.0.get_key_value(&subject))
        })
    }

    /// All rows, users first, by name.
    pub fn rows(&self) -> impl Iterator<Item = (&Subject, &Login)> {
        self.0.iter()
    }
}
