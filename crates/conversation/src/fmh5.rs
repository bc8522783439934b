//! FMH-5, the Attach: what ALLOCATE tells the other side.
//!
//! ```text
//! byte 0     length of the header, itself included, PIP data not
//!      1     X'05'            2-3  X'02FF', Attach
//!      4     X'80' user already verified   X'60' persistent verification
//!            X'10' password is a substitute   X'08' PIP data follow
//!      5     X'03'            6    X'D0' basic, X'D1' mapped
//!      7     reserved         8    X'00' sync level none, X'40' confirm
//!      9..   length and name of the transaction program
//!            length of all security subfields, then of each: length, type
//!            (00 profile, 01 password, 02 user id), data
//!            length and logical unit of work id
//!            length and conversation correlator
//!            length and conversation group id, and what later versions add
//! ```
//!
//! Fields from the security subfields on may be absent at the end. The header
//! is at most 255 bytes, which bounds everything in it. PIP data follow the
//! header as one GDS variable X'12F5' of subfields X'12E2'.

mod decode;
mod encode;
mod security;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::ebcdic::NotInAlphabet;
use crate::sense::Sense;

pub use security::{Password, Security};

/// Characters of a transaction program's name at most.
pub const MAX_TPN: usize = 64;
/// Program initialisation parameters at most.
pub const MAX_PIP_SUBFIELDS: usize = 64;
/// Bytes of PIP data at most, as they are encoded.
pub const MAX_PIP: usize = 8192;
/// Bytes of a conversation correlator, and of a conversation group id.
pub const MAX_CORRELATOR: usize = 8;

const KIND: u8 = 0x05;
const ATTACH: u16 = 0x02ff;
const ALREADY_VERIFIED: u8 = 0x80;
const PERSISTENT: u8 = 0x60;
const SUBSTITUTE: u8 = 0x10;
const PIP_FOLLOWS: u8 = 0x08;
const FIXED_LEN: u8 = 3;
const SYNC_CONFIRM: u8 = 0x40;
const SYNC_MASK: u8 = 0xc0;

/// How records travel on a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationType {
    /// The programs build the logical records themselves, LL and data.
    Basic,
    /// One record of any bytes per SEND_DATA.
    Mapped,
}

/// Whether the programs can ask each other for confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncLevel {
    /// They cannot.
    None,
    /// CONFIRM and DEALLOCATE(CONFIRM) wait for CONFIRMED.
    Confirm,
}

/// Name of a transaction program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TpName {
    /// First byte of a service program's name, below X'40'.
    pub service: Option<u8>,
    /// The name, in [`Alphabet::Graphic`](crate::ebcdic::Alphabet::Graphic); with the prefix
    /// 1 to [`MAX_TPN`] characters.
    pub name: String,
}

impl TpName {
    /// The name of a program that is no service program.
    pub fn new(name: impl Into<String>) -> Self {
        Self { service: None, name: name.into() }
    }
}

/// Logical unit of work id: names one piece of work across conversations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Luwid {
    /// Fully qualified LU name, `NETID.LUNAME`, 1 to 17 characters.
    pub lu_name: String,
    /// Instance number.
    pub instance: [u8; 6],
    /// Sequence number.
    pub sequence: u16,
}

/// Everything an Attach says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The program to be run.
    pub tpn: TpName,
    /// Basic or mapped.
    pub conversation_type: ConversationType,
    /// None or confirm.
    pub sync_level: SyncLevel,
    /// Who asks.
    pub security: Security,
    /// Which piece of work this belongs to.
    pub luwid: Option<Luwid>,
    /// Conversation correlator, at most [`MAX_CORRELATOR`] bytes; empty for none.
    pub correlator: Vec<u8>,
    /// Conversation group id, at most [`MAX_CORRELATOR`] bytes; empty for none.
    pub group: Vec<u8>,
    /// Program initialisation parameters, as the program wants them; `None` if
    /// there are no PIP data.
    pub pip: Option<Vec<Vec<u8>>>,
}

impl Attach {
    /// A mapped conversation with `tpn`, sync level confirm, nothing else.
    pub fn new(tpn: TpName) -> Self {
        Self {
            tpn,
            conversation_type: ConversationType::Mapped,
            sync_level: SyncLevel::Confirm,
            security: Security::None,
            luwid: None,
            correlator: Vec::new(),
            group: Vec::new(),
            pip: None,
        }
    }
}

/// A field of an Attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the fields of Attach and Security")]
pub enum Field {
    Header,
    Tpn,
    User,
    Password,
    Profile,
    Luwid,
    Correlator,
    Group,
    Pip,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "the header",
            Self::Tpn => "the transaction program's name",
            Self::User => "the user id",
            Self::Password => "the password",
            Self::Profile => "the profile",
            Self::Luwid => "the logical unit of work id",
            Self::Correlator => "the conversation correlator",
            Self::Group => "the conversation group id",
            Self::Pip => "the initialisation parameters",
        })
    }
}

/// Why an [`Attach`] cannot be sent. Who filled it in is to blame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A field is longer than the format has room for, or empty where it must
    /// not be.
    #[error("{field} of an Attach is {length} bytes long; {least} to {most} are possible")]
    Length {
        /// Which.
        field: Field,
        /// Its length, in bytes.
        length: usize,
        /// Least bytes.
        least: usize,
        /// Most bytes.
        most: usize,
    },
    /// A field has a character that names must not have.
    #[error("{field} of an Attach has a character that names must not have")]
    Characters {
        /// Which.
        field: Field,
        /// The character's place.
        source: NotInAlphabet,
    },
    /// A service program's prefix is not below X'40'.
    #[error("the prefix of a service program's name must be below X'40', not X'{0:02X}'")]
    Prefix(u8),
}

/// Why bytes are no Attach that can be served. Whoever sent them is to blame;
/// [`DecodeError::sense`] is what to answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not an FMH-5 Attach.
    #[error("not an Attach (FMH-5)")]
    NotAttach,
    /// The lengths in the header contradict each other.
    #[error("{0} of an Attach does not fit its length field")]
    Length(Field),
    /// A name has bytes that are no character of names.
    #[error("{field} of an Attach has a byte that is no character of names")]
    Characters {
        /// Which.
        field: Field,
        /// The byte's place.
        source: NotInAlphabet,
    },
    /// Neither basic nor mapped, half-duplex.
    #[error("conversation of unknown type X'{0:02X}'; basic and mapped, half-duplex, are known")]
    ConversationType(u8),
    /// Neither none nor confirm.
    #[error("sync level X'{0:02X}' is not supported; none and confirm are")]
    SyncLevel(u8),
    /// The security subfields break their rules.
    #[error("security subfields of an Attach: {0}")]
    Security(&'static str),
    /// The PIP data are malformed, missing or not announced.
    #[error("initialisation parameters of an Attach: {0}")]
    Pip(&'static str),
}

impl DecodeError {
    /// The sense code that refuses such an Attach.
    pub fn sense(&self) -> Sense {
        match self {
            Self::Length(Field::Tpn) | Self::Characters { field: Field::Tpn, .. } => {
                Sense::TPN_NOT_RECOGNIZED
            }
            Self::ConversationType(_) => Sense::CONVERSATION_TYPE_MISMATCH,
            Self::SyncLevel(_) => Sense::SYNC_LEVEL_NOT_SUPPORTED,
            Self::Security(_)
            | Self::Length(Field::User | Field::Password | Field::Profile)
            | Self::Characters { field: Field::User | Field::Password | Field::Profile, .. } => {
                Sense::SECURITY_NOT_VALID
            }
            Self::Pip(_) => Sense::PIP_NOT_SPECIFIED_CORRECTLY,
            Self::NotAttach | Self::Length(_) | Self::Characters { .. } => {
                Sense::UNRECOGNIZED_HEADER
            }
        }
    }
}
