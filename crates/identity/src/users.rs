//! The users of a host: ids, groups, password hashes.

use std::collections::BTreeMap;
use std::path::Path;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use serde::{Deserialize, Serialize};
use service_pool::{Group, UserId};

use crate::files::{FileError, read_private, replace_private};
use crate::text;
use crate::token::MAX_GROUPS;

/// Shortest password that can be set, in bytes.
pub const MIN_PASSWORD: usize = 8;
/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;
/// Most users of a host.
pub const MAX_USERS: usize = 10_000;
/// Longest users file, in bytes.
pub const MAX_USERS_FILE: u64 = 16 << 20;

/// How every hash begins. All are made alike, so that checking a password takes
/// the same work whoever asks, and a file cannot ask for gigabytes.
const HASH_FORM: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// A hash of no password, for users who are not there.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What is wrong with users. Whoever wrote the file or the command is to blame.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its text is not what a users file is.
    #[error("not a users file: {0}")]
    Malformed(String),
    /// A hash that is none, or was made differently.
    #[error("the password hash of {0} is not of this host; set the password again")]
    Hash(UserId),
    /// The id is taken.
    #[error("there is a user {0} already")]
    SameUser(UserId),
    /// Nobody has the id.
    #[error("there is no user {0}")]
    NoUser(UserId),
    /// Too many users, or groups of one.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        most: usize,
    },
    /// The password is too short or too long.
    #[error("a password has {MIN_PASSWORD} to {MAX_PASSWORD} bytes")]
    PasswordLength,
    /// The system gave no random salt or no memory.
    #[error("the password cannot be hashed: {0}")]
    Hashing(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    #[serde(with = "text")]
    id: UserId,
    #[serde(with = "text::list", default)]
    groups: Vec<Group>,
    password: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    user: Vec<User>,
}

/// Who may authenticate with a password, and their groups.
#[derive(Debug, Default)]
// Private: every hash has been checked to be of one form.
pub struct Users(BTreeMap<UserId, User>);

impl Users {
    /// Reads the text of a users file.
    ///
    /// # Errors
    /// [`UsersError`] when it is malformed, names a user twice, or has a hash
    /// that this host did not make.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        if text.len() as u64 > MAX_USERS_FILE {
            return Err(UsersError::Malformed("it is too long".to_owned()));
        }
        // The message names the place; it does not quote the line, which may
        // hold a hash.
        let page: Page = toml::from_str(text)
            .map_err(|error| UsersError::Malformed(error.message().to_owned()))?;
        let mut users = Self::default();
        for user in page.user {
            let ours = user.password.starts_with(HASH_FORM)
                && user.password.len() == NOBODY.len()
                && PasswordHash::new(&user.password).is_ok();
            if !ours {
                return Err(UsersError::Hash(user.id));
            }
            users.insert(user)?;
        }
        Ok(users)
    }

    /// Reads a users file, which must be private to its owner.
    ///
    /// # Errors
    /// [`UsersError`] as [`Users::parse`], or if the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        Self::parse(&read_private(path, MAX_USERS_FILE)?)
    }

    /// The text of the users file.
    ///
    /// # Errors
    /// [`UsersError::Malformed`] if it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, UsersError> {
        let page = Page { user: self.0.values().cloned().collect() };
        toml::to_string(&page).map_err(|error| UsersError::Malformed(error.to_string()))
    }

    /// Replaces the users file as a whole, readable by its owner only.
    ///
    /// # Errors
    /// [`UsersError::File`] if it cannot be written; the old one is still there.
    pub fn save(&self, path: &Path) -> Result<(), UsersError> {
        Ok(replace_private(path, &self.to_toml()?)?)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`UsersError`] when the id is taken or a bound is exceeded.
    pub fn add(
        &mut self,
        id: UserId,
        groups: Vec<Group>,
        password: &str,
    ) -> Result<(), UsersError> {
        if self.0.contains_key(&id) {
            return Err(UsersError::SameUser(id));
        }
        self.insert(User { id, groups, password: hash(password)? })
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// [`UsersError`] when there is no such user or the length is wrong.
    pub fn set_password(&mut self, id: &UserId, password: &str) -> Result<(), UsersError> {
        let user = self.0.get_mut(id).ok_or_else(|| UsersError::NoUser(id.clone()))?;
        user.password = hash(password)?;
        Ok(())
    }

    /// The groups of `id` if the password is right; `None` whatever is wrong,
    /// after the same work.
    #[must_use]
    pub fn authenticate(&self, id: &UserId, password: &[u8]) -> Option<&[Group]> {
        let user = self.0.get(id);
        let hash = user.map_or(NOBODY, |user| &user.password);
        let fits = password.len() <= MAX_PASSWORD;
        let password = if fits { password } else { &[] };
        let right = Argon2::default().verify_password(password, hash).is_ok();
        user.filter(|_| right && fits).map(|user| &*user.groups)
    }

    /// The groups of `id`, whoever asks.
    #[must_use]
    pub fn groups(&self, id: &UserId) -> Option<&[Group]> {
        self.0.get(id).map(|user| &*user.groups)
    }

    fn insert(&mut self, user: User) -> Result<(), UsersError> {
        if self.0.len() >= MAX_USERS {
            return Err(UsersError::TooMany { what: "users", most: MAX_USERS });
        }
        if user.groups.len() > MAX_GROUPS {
            return Err(UsersError::TooMany { what: "groups of a user", most: MAX_GROUPS });
        }
        let id = user.id.clone();
        match self.0.insert(id.clone(), user) {
            None => Ok(()),
            Some(_) => Err(UsersError::SameUser(id)),
        }
    }
}

fn hash(password: &str) -> Result<String, UsersError> {
    if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&password.len()) {
        return Err(UsersError::PasswordLength);
    }
    let hashed = Argon2::default().hash_password(password.as_bytes());
    let hashed = hashed.map_err(|error| UsersError::Hashing(error.to_string()))?;
    Ok(hashed.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn id(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    #[test]
    fn users_are_kept_private_and_authenticate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let staff = vec![Group::new("staff").unwrap()];
        let mut users = Users::default();
        users.add(id("alice"), staff.clone(), "correct horse").unwrap();
        users.save(&path).unwrap();
        users.set_password(&id("alice"), "battery staple").unwrap();
        users.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let users = Users::load(&path).unwrap();
        assert_eq!(users.authenticate(&id("alice"), b"battery staple"), Some(&staff[..]));
        assert_eq!(users.authenticate(&id("alice"), b"correct horse"), None);
        assert_eq!(users.authenticate(&id("alice"), &[b'x'; 2000]), None);
        assert_eq!(users.authenticate(&id("bob"), b""), None);

        let open = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&path, open).unwrap();
        let error = Users::load(&path).unwrap_err();
        assert!(matches!(error, UsersError::File(FileError::NotPrivate { .. })));
    }

    #[test]
    fn an_unknown_user_costs_a_whole_hash() {
        // That it verifies at all, and fails by its password: the work is done.
        let error = Argon2::default().verify_password(b"", NOBODY).unwrap_err();
        assert_eq!(error, argon2::password_hash::Error::PasswordInvalid);
        let made = hash("longenough").unwrap();
        assert_eq!(made.len(), NOBODY.len());
        assert!(made.starts_with(HASH_FORM));
    }

    #[test]
    fn wrong_users_are_refused() {
        let mut users = Users::default();
        assert!(matches!(users.add(id("a"), vec![], "short"), Err(UsersError::PasswordLength)));
        users.add(id("a"), vec![], "longenough").unwrap();
        let again = users.add(id("a"), vec![], "longenough");
        assert!(matches!(again, Err(UsersError::SameUser(_))));
        let nobody = users.set_password(&id("b"), "longenough");
        assert!(matches!(nobody, Err(UsersError::NoUser(_))));
        let text = users.to_toml().unwrap();
        assert!(matches!(Users::parse(&format!("{text}\n{text}")), Err(UsersError::SameUser(_))));
        let costly = text.replace("m=19456", "m=99999");
        assert!(matches!(Users::parse(&costly), Err(UsersError::Hash(_))));
        let start = text.find("p=1$").unwrap() + 4;
        let mut damaged = text.clone();
        damaged.replace_range(start..start + 1, "!");
        assert!(matches!(Users::parse(&damaged), Err(UsersError::Hash(_))));
        assert!(Users::parse(&text.replace("\"a\"", "\"../a\"")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_no_users_file(text in "\\PC{1,200}", key in "[a-z]{1,8}", value in ".{0,40}") {
            // Comments and blank lines are a file without users.
            if let Ok(users) = Users::parse(&text) {
                proptest::prop_assert!(users.0.is_empty());
            }
            let text = format!("[[user]]\nid = \"a\"\n{key} = {value:?}\n");
            proptest::prop_assert!(Users::parse(&text).is_err());
        }
    }
}
