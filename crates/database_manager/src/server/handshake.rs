//! How the broker logs in, and how it looks at the role that it has become.

use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{OpenError, Stream};
use crate::protocol::{CancelKey, fields_of_error, message_of};
use crate::settings::set_application;
use crate::table::Login;

/// Longest message of the server's before a guest is let in, in bytes, and all
/// that a guest is told then.
const MAX_MESSAGE: usize = 64 << 10;

/// A connection that a guest may have.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// By which the server cancels what runs in it, if it does so.
    pub(crate) key: Option<CancelKey>,
    /// What the server says to a client that has logged in: its settings.
    pub(crate) settings: Vec<u8>,
}

/// Logged in.
pub(super) struct Entered {
    pub(super) key: Option<CancelKey>,
    pub(super) settings: Vec<u8>,
    /// Whether the server was asked with the last that it had to know.
    asked: bool,
}

/// Whether the role can become another, or see what is another's whatever the
/// tables' owners allow: by what it is and by what it is a member of. Whoever owns
/// the database is `pg_database_owner` as well, which is no other. Everything is
/// named in full: what a role has put into its search path is not used.
const CHECK: &str = "\
SELECT CASE WHEN r.rolsuper THEN 'is a superuser' \
 WHEN r.rolreplication THEN 'may replicate' \
 WHEN r.rolcreaterole THEN 'may make roles' \
 WHEN r.rolbypassrls THEN 'passes by the security of rows' \
 ELSE (SELECT 'is a member of ' OPERATOR(pg_catalog.||) o.rolname::pg_catalog.text \
  FROM pg_catalog.pg_roles o \
  WHERE o.oid OPERATOR(pg_catalog.<>) r.oid \
  AND o.rolname OPERATOR(pg_catalog.<>) 'pg_database_owner'::pg_catalog.name \
  AND pg_catalog.pg_has_role(r.oid, o.oid, CASE WHEN \
   pg_catalog.current_setting('server_version_num')::pg_catalog.int4 \
   OPERATOR(pg_catalog.>=) 160000 THEN 'SET' ELSE 'MEMBER' END) LIMIT 1) END \
FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER";

/// Whether one that was let in a while ago would be now.
const STILL: &str = "\
SELECT 1 FROM pg_catalog.pg_roles r \
WHERE r.rolname OPERATOR(pg_catalog.=) SESSION_USER AND r.rolcanlogin \
AND (r.rolvaliduntil IS NULL \
 OR r.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.statement_timestamp()) \
AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CONNECT') \
AND (";

/// Whether a connection that was opened a while ago is as good as a new one: the role
/// is still let in, and is one that a guest may be. It has this name of an application
/// then.
pub(super) async fn is_still_good(
    opened: &mut Opened,
    application: Option<&str>,
) -> Result<bool, OpenError> {
    let set = application.map(set_application).unwrap_or_default();
    let mut out = BytesMut::new();
    frontend::query(&format!("{STILL}{CHECK}) IS NULL; {set}"), &mut out)?;
    send(&mut opened.stream, &out).await?;
    // What it says of its settings meanwhile is for the guest.
    let row = answer(&mut opened.stream, &mut opened.settings).await?;
    Ok(row.is_some() && opened.settings.len() <= MAX_MESSAGE)
}

/// Logs in as the login's role, and looks whether it is one that a guest may be.
///
/// The question goes with the last of the proof: the server has it when it is ready.
pub(super) async fn enter_and_look(
    stream: &mut Stream,
    login: &Login,
    parameters: &[(String, String)],
    password: Option<&str>,
) -> Result<Entered, OpenError> {
    let mut look = BytesMut::new();
    frontend::query(CHECK, &mut look)?;
    let mut entered = log_in(stream, login, parameters, password, &look).await?;
    if !entered.asked {
        send(stream, &look).await?;
    }
    let row = answer(stream, &mut entered.settings).await?;
    judge(row.as_deref(), login).map(|()| entered)
}

/// Logs in as the login's role.
pub(super) async fn enter(
    stream: &mut Stream,
    login: &Login,
    password: Option<&str>,
) -> Result<Entered, OpenError> {
    log_in(stream, login, &[], password, &[]).await
}

/// Logs in, and says what is `next` at once after what proves the password.
async fn log_in(
    stream: &mut Stream,
    login: &Login,
    parameters: &[(String, String)],
    password: Option<&str>,
    next: &[u8],
) -> Result<Entered, OpenError> {
    let mut out = BytesMut::new();
    let own = [("user", login.role.as_str()), ("database", login.database.as_str())];
    let theirs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    frontend::startup_message(own.into_iter().chain(theirs), &mut out)?;
    send(stream, &out).await?;
    let mut entered = Entered { key: None, settings: Vec::new(), asked: false };
    let mut proof = Proof::None;
    loop {
        let (kind, body) = receive(stream).await?;
        match kind {
            b'R' => {
                let mut out = BytesMut::new();
                proof = proof.answer(&body, login, password, &mut out)?;
                if matches!(proof, Proof::Given(_)) && !next.is_empty() {
                    out.extend_from_slice(next);
                    entered.asked = true;
                }
                send(stream, &out).await?;
            }
            b'S' | b'N' => {
                entered.settings.extend(message_of(kind, &body));
                if entered.settings.len() > MAX_MESSAGE {
                    return Err(OpenError::Protocol("has more settings than fit"));
                }
            }
            b'K' => entered.key = key(&body),
            b'Z' if matches!(proof, Proof::None | Proof::Done) => return Ok(entered),
            _ => return Err(OpenError::Protocol("said what does not belong to logging in")),
        }
    }
}

/// Refuses a role by which a guest could become another.
fn judge(row: Option<&[Option<Vec<u8>>]>, login: &Login) -> Result<(), OpenError> {
    match row {
        Some([None]) => Ok(()),
        Some([Some(why)]) => {
            let (role, why) = (login.role.to_string(), String::from_utf8_lossy(why).into_owned());
            Err(OpenError::Unsafe { role, why })
        }
        _ => Err(OpenError::Protocol("does not know the role that it let in")),
    }
}

/// The first row that the server has to a query.
pub(super) async fn ask(
    stream: &mut Stream,
    query: &str,
) -> Result<Option<Vec<Option<Vec<u8>>>>, OpenError> {
    let mut out = BytesMut::new();
    frontend::query(query, &mut out)?;
    send(stream, &out).await?;
    answer(stream, &mut Vec::new()).await
}

/// The first row of an answer to a query; what is said besides is added to `settings`.
async fn answer(
    stream: &mut Stream,
    settings: &mut Vec<u8>,
) -> Result<Option<Vec<Option<Vec<u8>>>>, OpenError> {
    let mut first = None;
    loop {
        let (kind, body) = receive(stream).await?;
        match kind {
            b'D' if first.is_none() => {
                first = Some(row(&body).ok_or(OpenError::Protocol("sent a row out of form"))?);
            }
            b'Z' => return Ok(first),
            b'S' if settings.len() <= MAX_MESSAGE => settings.extend(message_of(kind, &body)),
            b'T' | b'D' | b'C' | b'N' => {}
            _ => return Err(OpenError::Protocol("said what is no answer to a query")),
        }
    }
}

/// The fields of a row as text.
fn row(body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut fields = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        // A field without a value has the length -1.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            fields.push(None);
            continue;
        };
        let (field, tail) = rest.split_at_checked(length)?;
        fields.push(Some(field.to_vec()));
        rest = tail;
    }
    Some(fields)
}

fn key(body: &[u8]) -> Option<CancelKey> {
    let (process, secret) = body.split_first_chunk::<4>()?;
    let secret = secret.try_into().map(u32::from_be_bytes).ok()?;
    Some(CancelKey { process: u32::from_be_bytes(*process), secret })
}

/// How far the broker has proved that it has the password.
enum Proof {
    /// It was not asked to.
    None,
    /// Under way: it was asked how.
    Scram(Box<ScramSha256>),
    /// The broker has; the server is to prove that it knows it too.
    Given(Box<ScramSha256>),
    /// Both sides have proved it.
    Done,
}

impl Proof {
    /// Answers what the server wants to know.
    fn answer(
        self,
        body: &[u8],
        login: &Login,
        password: Option<&str>,
        out: &mut BytesMut,
    ) -> Result<Self, OpenError> {
        let Some((code, data)) = body.split_first_chunk::<4>() else {
            return Err(OpenError::Protocol("asked for nothing when logging in"));
        };
        let next = match (u32::from_be_bytes(*code), self) {
            (0, proof @ (Self::None | Self::Done)) => proof,
            (10, Self::None) => {
                if !data.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return Err(OpenError::Protocol("knows no SCRAM-SHA-256"));
                }
                let Some(password) = password else {
                    return Err(OpenError::NoPassword { role: login.role.to_string() });
                };
                let binding = ChannelBinding::unsupported();
                let scram = Box::new(ScramSha256::new(password.as_bytes(), binding));
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out)?;
                Self::Scram(scram)
            }
            (11, Self::Scram(mut scram)) => {
                scram.update(data)?;
                frontend::sasl_response(scram.message(), out)?;
                Self::Given(scram)
            }
            (12, Self::Given(mut scram)) => {
                scram.finish(data)?;
                Self::Done
            }
            _ => {
                return Err(OpenError::Protocol(
                    "asks for a proof that is not given; let these roles in by scram-sha-256, \
                     or on its socket by peer or trust (pg_hba.conf)",
                ));
            }
        };
        Ok(next)
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A message that is no error.
async fn receive(stream: &mut Stream) -> Result<(u8, Vec<u8>), OpenError> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    let Some(length) = length.checked_sub(4).filter(|length| *length <= MAX_MESSAGE) else {
        return Err(OpenError::Protocol("sent a message of a length that cannot be"));
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if kind == b'E' {
        let (code, message) = fields_of_error(&body);
        return Err(OpenError::Refused { code, message });
    }
    Ok((kind, body))
}

/// Logs in at a server that says anything, and looks at the role.
#[cfg(feature = "test-utils")]
pub(crate) async fn exercise_handshake(stream: &mut Stream) {
    let (Ok(database), Ok(role)) = ("d".parse(), "r".parse()) else { return };
    let login = Login { database, role, limits: crate::table::Limits::default() };
    // Whatever it says, it comes to an end.
    let _ = enter_and_look(stream, &login, &[], Some("secret")).await;
}
