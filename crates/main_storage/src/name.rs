//! Names of partitions.

use std::fmt;
use std::str::FromStr;

/// The name of a partition: 1 to 31 characters, lower-case letters, digits and
/// hyphens, the first not a hyphen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Private because the constructor checks the form: a name is safe in file
// names, on a kernel command line and in a terminal.
pub struct PartitionName(String);

/// Why a text names no partition. Whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a partition name; use 1 to 31 lower-case letters, digits and hyphens, \
     beginning with a letter or digit"
)]
pub struct NameError {
    /// What was given.
    pub text: String,
}

impl PartitionName {
    /// The name `text`.
    ///
    /// # Errors
    /// [`NameError`] when the form is wrong.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = matches!(text.len(), 1..=31)
            && !text.starts_with('-')
            && text.bytes().all(|byte| legal(byte) || byte == b'-');
        if valid { Ok(Self(text.to_owned())) } else { Err(NameError { text: text.to_owned() }) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartitionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for PartitionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_checked() {
        let longest = "a".repeat(31);
        for good in ["a", "0", "lpar1", "a-b-", longest.as_str()] {
            assert_eq!(PartitionName::new(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(32);
        for bad in ["", "-a", "A", "a_b", "a/b", "..", "ä", "a b", too_long.as_str()] {
            assert_eq!(PartitionName::new(bad), Err(NameError { text: bad.to_owned() }));
        }
    }
}
