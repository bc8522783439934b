//! What the gateway asks of the rest of the host: who a user is, and a machine.

use async_trait::async_trait;
use conversation::Sense;
use conversation::fmh5::SyncLevel;
use tokio::io::{AsyncRead, AsyncWrite};

/// A user whose id has been proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's id.
    pub user: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
}

/// What proves a user id. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A password.
    Password(String),
    /// A signed token.
    Token(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// The credential does not prove the user id. It does not say why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("user or credential not valid")]
pub struct NotValid;

/// Knows the users. A blocking implementation hands its work to
/// `tokio::task::spawn_blocking`.
#[async_trait]
pub trait Authority: Send + Sync {
    /// The user, if the credential is theirs.
    ///
    /// # Errors
    /// [`NotValid`], whatever is wrong; it should take as long for a user who
    /// does not exist.
    async fn authenticate(
        &self,
        user: &str,
        credential: &Credential,
    ) -> Result<Principal, NotValid>;

    /// The user who owns a local process of this uid.
    async fn peer(&self, uid: u32) -> Option<Principal>;

    /// The user of this id, for an administrator who acts for them.
    async fn named(&self, user: &str) -> Option<Principal>;
}

/// Who asks for which program, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Name of the caller's LU, from the logical unit of work id. Not proved.
    pub lu_name: Option<String>,
    /// Name of the program, `POOL` or `POOL/TPN`.
    pub tpn: String,
    /// Who asks; `None` if nobody was named. Then it is for the service to
    /// allow it or not.
    pub principal: Option<Principal>,
    /// Whether confirmations can be asked for.
    pub sync_level: SyncLevel,
    /// Parameters for the program, at most 64; `None` if there are none.
    pub pip: Option<Vec<Vec<u8>>>,
    /// What the user has sent already for the program: a service may hand it on before
    /// the program has accepted, so that it need not wait. See [`Joined::handed_on`].
    pub early: Vec<u8>,
}

impl AttachRequest {
    /// The name of the pool: [`tpn`](Self::tpn) up to its first `/`.
    pub fn pool(&self) -> &str {
        self.tpn.split_once('/').map_or(&self.tpn, |(pool, _)| pool)
    }

    /// The program within the pool: what follows the first `/`.
    pub fn program(&self) -> Option<&str> {
        self.tpn.split_once('/').map(|(_, program)| program)
    }
}

/// Why there is no machine. The texts go to the user; they must not say what
/// the user may not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such pool or program.
    #[error("no transaction program of this name")]
    TpnNotRecognized,
    /// This user may not have it. One answer, whatever was wrong.
    #[error("user, password or authority refused")]
    NotAuthorised,
    /// Not now, perhaps later.
    #[error("{0}")]
    Retry(String),
    /// Neither now nor later.
    #[error("{0}")]
    Never(String),
    /// The program takes no parameters.
    #[error("the program takes no parameters")]
    PipNotAllowed,
    /// The program does not take these parameters.
    #[error("the parameters are not what the program takes")]
    PipNotValid,
    /// The program does not do this sync level.
    #[error("the program does not support this sync level")]
    SyncLevel,
}

impl Refusal {
    /// What it is called on the wire.
    pub fn sense(&self) -> Sense {
        match self {
            Self::TpnNotRecognized => Sense::TPN_NOT_RECOGNIZED,
            Self::NotAuthorised => Sense::SECURITY_NOT_VALID,
            Self::Retry(_) => Sense::TP_NOT_AVAILABLE_RETRY,
            Self::Never(_) => Sense::TP_NOT_AVAILABLE_NO_RETRY,
            Self::PipNotAllowed => Sense::PIP_NOT_ALLOWED,
            Self::PipNotValid => Sense::PIP_NOT_SPECIFIED_CORRECTLY,
            Self::SyncLevel => Sense::SYNC_LEVEL_NOT_SUPPORTED,
        }
    }
}

/// Has the machines.
#[async_trait]
pub trait Service: Send + Sync {
    /// Gives the caller a machine with the program, after a bounded wait. The
    /// future is dropped if the caller vanishes while it waits: that withdraws
    /// the request.
    ///
    /// # Errors
    /// [`Refusal`], which the caller is told.
    async fn attach(&self, request: AttachRequest) -> Result<Joined, Refusal>;

    /// Somebody was refused before the service was asked. What they say of
    /// themselves is proved by nothing, and they can say it often.
    fn turned_away(&self, user: Option<&str>, tpn: &str, sense: Sense) {
        let _ = (user, tpn, sense);
    }
}

/// A program in a machine, given to one user.
pub struct Joined {
    /// The program's input. Shutting it down tells the program that no more
    /// will come. A flush is complete when the program has taken what was
    /// written before, as far as the service can tell.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// The program's output. It ends when the program has ended, at latest.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// The conversation at the service's side.
    pub program: Box<dyn Conversation>,
    /// Bytes of [`AttachRequest::early`] that the program's input has had.
    pub handed_on: usize,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").finish_non_exhaustive()
    }
}

/// A conversation at the service's side. Dropped before it has ended, it is
/// ended as by [`Why::Gateway`].
#[async_trait]
pub trait Conversation: Send {
    /// Waits until the program has ended and says how. It may be dropped and
    /// asked again; once it has answered it is not asked again, and the machine
    /// need not wait for this value to be dropped, only for its output to be
    /// read to the end.
    async fn ended(&mut self) -> Ending;

    /// Ends the conversation now, in disorder. Must not block.
    fn abend(&mut self, why: Why);
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order: exit status 0, or closed by itself.
    Confirmed,
    /// With this exit status, or the error number that it answered with.
    Error(i32),
    /// A signal or the guest's own end took it.
    Died,
    /// The service took it, because its time was over.
    Deadline,
    /// The machine or its host is gone. Trying again may help.
    HostLost,
}

/// Why the gateway ends a conversation in disorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The user's connection is lost, or the user broke the protocol.
    Vanished,
    /// The user issued DEALLOCATE(ABEND).
    User,
    /// The program did not confirm, or did not end, in time.
    Deadline,
    /// Neither side said anything for too long.
    Idle,
    /// The gateway ends.
    Gateway,
}
