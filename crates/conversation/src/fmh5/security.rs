//! Who asks for a conversation, as the security subfields say it.

use std::fmt;

use super::encode::{counted_name, length_byte};
use super::{DecodeError, EncodeError, Field};
use crate::ebcdic::{self, Alphabet};

const PROFILE: u8 = 0;
const PASSWORD: u8 = 1;
const USER: u8 = 2;

/// Characters of a user id, a profile or a password at most; the header's
/// length bounds them together.
const MAX_NAME: usize = 255;

/// Who asks for a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Nobody in particular.
    None,
    /// A user whom the sender has verified. Worth as much as the sender is
    /// trusted.
    Same {
        /// The user's id, in [`Alphabet::Graphic`].
        user: String,
        /// The user's profile or group.
        profile: Option<String>,
    },
    /// A user who proves it.
    Pgm {
        /// The user's id, in [`Alphabet::Graphic`].
        user: String,
        /// The proof.
        password: Password,
        /// The user's profile or group.
        profile: Option<String>,
    },
}

impl Security {
    /// The user id that is named, proved or not.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Same { user, .. } | Self::Pgm { user, .. } => Some(user),
        }
    }
}

/// What proves a user id. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// A password, or a signed token short enough for the header, in
    /// [`Alphabet::Graphic`].
    Clear(String),
    /// Bytes computed from the password, meaningful to the two ends only.
    Substitute(Vec<u8>),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clear(_) => "Clear(..)",
            Self::Substitute(_) => "Substitute(..)",
        })
    }
}

impl Security {
    /// The security subfields, without the length in front of them: password,
    /// user id, profile.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let (user, password, profile) = match self {
            Self::None => return Ok(Vec::new()),
            Self::Same { user, profile } => (user, None, profile),
            Self::Pgm { user, password, profile } => (user, Some(password), profile),
        };
        let mut out = Vec::new();
        if let Some(password) = password {
            let bytes = match password {
                Password::Clear(text) => {
                    counted_name(Field::Password, text, Alphabet::Graphic, MAX_NAME)?
                }
                Password::Substitute(bytes) => bytes.clone(),
            };
            subfield(&mut out, Field::Password, PASSWORD, &bytes)?;
        }
        let user = counted_name(Field::User, user, Alphabet::Graphic, MAX_NAME)?;
        subfield(&mut out, Field::User, USER, &user)?;
        if let Some(profile) = profile {
            let profile = counted_name(Field::Profile, profile, Alphabet::Graphic, MAX_NAME)?;
            subfield(&mut out, Field::Profile, PROFILE, &profile)?;
        }
        Ok(out)
    }

    /// Reads the security subfields. `already_verified` and `substitute` are
    /// the bits of byte 4.
    pub(super) fn decode(
        subfields: &[u8],
        already_verified: bool,
        substitute: bool,
    ) -> Result<Self, DecodeError> {
        let [profile, password, user] = split(subfields)?;
        let Some(user) = user else {
            if profile.is_some() || password.is_some() {
                return Err(DecodeError::Security("profile or password without a user id"));
            }
            if already_verified {
                return Err(DecodeError::Security("nobody is said to be verified"));
            }
            return Ok(Self::None);
        };
        let user = name(Field::User, user)?;
        let profile = profile.map(|bytes| name(Field::Profile, bytes)).transpose()?;
        match (password, already_verified) {
            (None, true) => Ok(Self::Same { user, profile }),
            (Some(bytes), false) => {
                let password = if substitute {
                    Password::Substitute(bytes.to_vec())
                } else {
                    Password::Clear(name(Field::Password, bytes)?)
                };
                Ok(Self::Pgm { user, password, profile })
            }
            (None, false) => Err(DecodeError::Security("user id without a password")),
            (Some(_), true) => Err(DecodeError::Security("password of a verified user")),
        }
    }
}

fn subfield(out: &mut Vec<u8>, field: Field, kind: u8, data: &[u8]) -> Result<(), EncodeError> {
    out.push(length_byte(field, data.len() + 1, 2, 255)?);
    out.push(kind);
    out.extend(data);
    Ok(())
}

fn name(field: Field, bytes: &[u8]) -> Result<String, DecodeError> {
    ebcdic::decode(bytes, Alphabet::Graphic)
        .map_err(|source| DecodeError::Characters { field, source })
}

/// The data of the subfields, by type; each may be there once, in any order.
fn split(subfields: &[u8]) -> Result<[Option<&[u8]>; 3], DecodeError> {
    let mut found = [None; 3];
    let mut rest = subfields;
    while let Some((&length, after)) = rest.split_first() {
        let Some((body, after)) = after.split_at_checked(usize::from(length)) else {
            return Err(DecodeError::Security("a subfield is longer than all of them"));
        };
        let Some((&kind, data)) = body.split_first().filter(|(_, data)| !data.is_empty()) else {
            return Err(DecodeError::Security("an empty subfield"));
        };
        let Some(slot) = found.get_mut(usize::from(kind)) else {
            return Err(DecodeError::Security("a subfield of unknown type"));
        };
        if slot.replace(data).is_some() {
            return Err(DecodeError::Security("a subfield twice"));
        }
        rest = after;
    }
    Ok(found)
}
