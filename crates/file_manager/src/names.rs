//! Names of spaces, and paths inside them.

use std::fmt;
use std::str::FromStr;

use service_pool::{NameError, UserId};

/// Longest name of a file, in bytes, as on the host.
pub const MAX_FILE_NAME: usize = 255;
/// Deepest place of a file in its space, in names.
pub const MAX_DEPTH: usize = 100;
/// Longest path in a grant, in bytes.
const MAX_PATH: usize = 512;
/// Most names in the path of a grant.
const MAX_GRANT_DEPTH: usize = 32;

/// The name of a space. It has the form of a user id, so it is safe as the name
/// of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceName(UserId);

impl SpaceName {
    /// The name of the space that is a user's own.
    #[must_use]
    pub fn of_user(user: &UserId) -> Self {
        Self(user.clone())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for SpaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match UserId::new(text) {
            Ok(name) => Ok(Self(name)),
            Err(error) => Err(NameError { kind: "a space's name", ..error }),
        }
    }
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A directory in a space, named from the space's root, which is the empty path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
// Private: every name is one that a file can have.
pub struct SpacePath(Vec<String>);

impl SpacePath {
    /// Its names, from the root on.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for SpacePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let names = || -> Vec<String> { text.split('/').map(str::to_owned).collect() };
        let names = if text.is_empty() { Vec::new() } else { names() };
        let legal = |name: &String| {
            is_file_name(name.as_bytes()) && !name.contains(|c: char| c.is_control())
        };
        if text.len() <= MAX_PATH && names.len() <= MAX_GRANT_DEPTH && names.iter().all(legal) {
            return Ok(Self(names));
        }
        Err(NameError {
            text: text.chars().take(80).collect(),
            kind: "a directory in a space",
            form: "names with / between, none of them empty, . or ..",
        })
    }
}

impl fmt::Display for SpacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join("/"))
    }
}

/// Whether a directory can have an entry of this name that is not itself or its
/// parent.
pub(crate) fn is_file_name(name: &[u8]) -> bool {
    matches!(name.len(), 1..=MAX_FILE_NAME)
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// Names in JSON: as text, checked on reading.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(SpaceName, SpacePath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for good in ["", "a", "a/b c/ä", "...", "-x"] {
            assert_eq!(good.parse::<SpacePath>().unwrap().to_string(), good);
        }
        let long = "a".repeat(256);
        for bad in ["/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/.", "a\0", "a\n", &long] {
            assert!(bad.parse::<SpacePath>().is_err(), "{bad:?}");
        }
        assert!(["a"; 33].join("/").parse::<SpacePath>().is_err());
    }

    #[test]
    fn spaces_have_their_form() {
        assert!("../x".parse::<SpaceName>().is_err());
        assert_eq!("team".parse::<SpaceName>().unwrap().to_string(), "team");
    }
}
