//! Names of databases and roles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use service_pool::NameError;

/// Longest name that PostgreSQL keeps, in bytes.
const MAX_SQL_NAME: usize = 63;

/// The name of a database or a role of PostgreSQL: 1 to 63 bytes without control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Private: the form holds, so a name fits a startup message and a line of a log.
pub struct SqlName(String);

impl SqlName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SqlName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = matches!(text.len(), 1..=MAX_SQL_NAME);
        if fits && !text.contains(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError {
            text: text.chars().take(80).collect(),
            kind: "a name of a database or role",
            form: "1 to 63 bytes without control characters",
        })
    }
}

impl fmt::Display for SqlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for SqlName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SqlName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_postgresql_keeps() {
        for good in ["alice", "Mail Box", "größe", &"a".repeat(63)] {
            assert_eq!(good.parse::<SqlName>().unwrap().as_str(), good);
        }
        for bad in ["", "a\0b", "a\nb", &"a".repeat(64)] {
            assert!(bad.parse::<SqlName>().is_err(), "{bad:?}");
        }
    }
}
