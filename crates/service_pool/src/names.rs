//! Names of pools, their machines, programs, users and groups.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name of a pool, in characters: with a number it is a partition's name.
pub const MAX_POOL_NAME: usize = 24;
/// Longest name of a program, a user or a group, in characters.
pub const MAX_NAME: usize = 64;
/// Most machines a pool may have.
pub const MAX_MEMBERS: u16 = 10_000;

/// A text that is no name of its kind. Whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}; use {form}")]
pub struct NameError {
    /// What was given, shortened if it is long.
    pub text: String,
    /// What it was to be, such as "a user id".
    pub kind: &'static str,
    /// What such a name may be made of.
    pub form: &'static str,
}

impl NameError {
    fn new(text: &str, kind: &'static str, form: &'static str) -> Self {
        Self { text: text.chars().take(MAX_NAME + 1).collect(), kind, form }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $form:literal, $legal:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // Private because the constructor checks the form; shared because names
        // are copied into every answer.
        pub struct $name(Arc<str>);

        impl $name {
            /// The name `text`.
            ///
            /// # Errors
            /// [`NameError`] when the form is wrong.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $legal(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::new(text, $kind, $form))
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// The name of a pool: 1 to 24 lower-case letters, digits and hyphens, the
    /// first not a hyphen.
    PoolName,
    "a pool's name",
    "1 to 24 lower-case letters, digits and hyphens, beginning with a letter or digit",
    is_pool_name
);

name_type!(
    /// The name of a transaction program: 1 to 64 characters that LU 6.2 has for
    /// such names.
    Tpn,
    "a transaction program's name",
    "1 to 64 letters, digits and .<(+&*);-/,%_>?:'=\"$#@",
    is_tpn
);

name_type!(
    /// The id of a user: 1 to 64 letters, digits and `.-_@$#`. It is safe in a
    /// terminal and as part of a file name.
    UserId,
    "a user id",
    "1 to 64 letters, digits and .-_@$#, not beginning with a dot or hyphen",
    is_id
);

name_type!(
    /// The name of a group of users; it has the form of a user id.
    Group,
    "a group's name",
    "1 to 64 letters, digits and .-_@$#, not beginning with a dot or hyphen",
    is_id
);

fn is_pool_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    matches!(text.len(), 1..=MAX_POOL_NAME) && !text.starts_with('-') && text.bytes().all(legal)
}

fn is_tpn(text: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || b".<(+&*);-/,%_>?:'=\"$#@".contains(&byte);
    matches!(text.len(), 1..=MAX_NAME) && text.bytes().all(legal)
}

fn is_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@$#".contains(&byte);
    matches!(text.len(), 1..=MAX_NAME) && !text.starts_with(['.', '-']) && text.bytes().all(legal)
}

/// The primary id of a machine of a pool, such as `serve-03`: the pool's name
/// and a number. It is a legal name of a partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Private: the number lies below MAX_MEMBERS and fits the width.
pub struct MemberId {
    pool: PoolName,
    number: u16,
    width: u8,
}

const MEMBER_FORM: &str = "a pool's name, a hyphen and a number of at least two digits";

impl MemberId {
    /// Machine `number` of `pool`, when the pool's machines are written with
    /// `width` digits; a number that needs more gets more.
    pub(crate) fn new(pool: PoolName, number: u16, width: u8) -> Self {
        let needed = decimal_digits(number);
        Self { pool, number, width: width.max(needed) }
    }

    /// The pool the machine is of.
    #[must_use]
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// Its number, from 0.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// How many digits the numbers of `count` machines are written with.
pub(crate) fn width_for(count: u16) -> u8 {
    decimal_digits(count.saturating_sub(1)).max(2)
}

fn decimal_digits(number: u16) -> u8 {
    match number {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        _ => 4,
    }
}

impl FromStr for MemberId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.rsplit_once('-').and_then(|(pool, digits)| {
            let written =
                matches!(digits.len(), 2..=4) && digits.bytes().all(|b| b.is_ascii_digit());
            let width = u8::try_from(digits.len()).ok().filter(|_| written)?;
            let number = digits.parse().ok().filter(|number| *number < MAX_MEMBERS)?;
            Some(Self { pool: PoolName::new(pool).ok()?, number, width })
        });
        parsed.ok_or_else(|| NameError::new(text, "a pool machine's primary id", MEMBER_FORM))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = usize::from(self.width);
        f.pad(&format!("{}-{:0width$}", self.pool, self.number))
    }
}

/// What a conversation is called, in logs, in tokens and in the machine. No two
/// conversations have one id, also not over restarts of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// Private: only a conversation manager makes new ones, in rising order.
pub struct ConversationId {
    epoch: u64,
    number: u64,
}

impl ConversationId {
    pub(crate) fn new(epoch: u64, number: u64) -> Self {
        Self { epoch, number }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:x}.{:x}", self.epoch, self.number))
    }
}

impl FromStr for ConversationId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let part = |digits: &str| {
            let value = u64::from_str_radix(digits, 16).ok()?;
            // Only the one way it is written: no sign, no capitals, no zeros.
            (format!("{value:x}") == digits).then_some(value)
        };
        let parsed = text
            .split_once('.')
            .and_then(|(epoch, number)| Some(Self { epoch: part(epoch)?, number: part(number)? }));
        let form = "two hexadecimal numbers with a dot between";
        parsed.ok_or_else(|| NameError::new(text, "a conversation's id", form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use main_storage::PartitionName;

    #[test]
    fn names_have_their_forms() {
        let longest = "a".repeat(64);
        for good in ["MAIL", "a.b(c)", "'=\"", longest.as_str()] {
            assert_eq!(Tpn::new(good).unwrap().as_str(), good);
        }
        for good in ["alice", "A", "bob@example.com", "_x", longest.as_str()] {
            assert_eq!(UserId::new(good).unwrap().to_string(), good);
        }
        let long = "a".repeat(65);
        for bad in ["", "a b", "ä", "a\n", "a\0", long.as_str()] {
            assert!(Tpn::new(bad).is_err(), "{bad:?}");
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["../x", "-x", ".x", "a/b", "a'b"] {
            assert!(UserId::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "-a", "Serve", "a_b", &"a".repeat(25)] {
            assert!(PoolName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_long_text() {
        let error = UserId::new(&"ä".repeat(1_000_000)).unwrap_err();
        assert!(error.to_string().len() < 400);
    }

    #[test]
    fn primary_ids_are_partition_names_and_read_back() {
        for (name, count) in [("serve", 15), ("serve-1", 100), (&*"p".repeat(24), 10_000)] {
            let pool = PoolName::new(name).unwrap();
            for number in [0, count - 1] {
                let member = MemberId::new(pool.clone(), number, width_for(count));
                let text = member.to_string();
                assert!(PartitionName::new(&text).is_ok(), "{text}");
                assert_eq!(text.parse(), Ok(member));
            }
        }
        let third = MemberId::new(PoolName::new("serve").unwrap(), 3, width_for(15));
        assert_eq!(third.to_string(), "serve-03");
        assert!("serve-3".parse::<MemberId>().is_err());
        assert!("serve-+3".parse::<MemberId>().is_err());
        assert!("-03".parse::<MemberId>().is_err());
    }

    #[test]
    fn conversation_ids_are_written_one_way() {
        let id = ConversationId::new(0x18f, 31);
        assert_eq!(id.to_string(), "18f.1f");
        assert_eq!("18f.1f".parse(), Ok(id));
        for bad in ["18f.01f", "18F.1f", "+1.2", "1", "", "1.2.3", "1.10000000000000000"] {
            assert!(bad.parse::<ConversationId>().is_err(), "{bad}");
        }
    }
}
