//! To whom managers give something: a user or a group.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use service_pool::{Group, NameError, UserId};

/// To whom something is granted; as text `user:ID` or `group:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One user.
    User(UserId),
    /// Every user of a group.
    Group(Group),
}

impl Subject {
    /// Whether `user`, who is of `groups`, is meant.
    #[must_use]
    pub fn covers(&self, user: &UserId, groups: &[Group]) -> bool {
        match self {
            Self::User(id) => id == user,
            Self::Group(group) => groups.contains(group),
        }
    }
}

impl FromStr for Subject {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            Some(("user", id)) => UserId::new(id).map(Self::User),
            Some(("group", name)) => Group::new(name).map(Self::Group),
            _ => Err(NameError {
                text: text.chars().take(80).collect(),
                kind: "a user or group",
                form: "user:ID or group:NAME",
            }),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_their_forms() {
        for good in ["user:alice", "group:staff"] {
            assert_eq!(good.parse::<Subject>().unwrap().to_string(), good);
        }
        for bad in ["alice", "user:", "owner:alice", "group:a/b"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
    }
}
