//! What a machine of a pool is told and asks.

use std::fmt;

use crate::payload::{ExecRequest, Reader, put_bytes, put_u32, put_u64};
use crate::{Message, ProtocolError};

/// Longest transaction program name, in bytes.
pub const MAX_TPN: usize = 64;

/// Longest path and query of a `MetadataRequest`, in bytes.
pub const MAX_METADATA_PATH: usize = 1024;

/// Longest body of a `MetadataReply`, in bytes.
pub const MAX_METADATA_BODY: usize = 16 * 1024;

/// `MetadataRequest`s of a guest that wait for their reply at the same time.
/// One more is answered with status 429.
pub const MAX_METADATA_REQUESTS: usize = 16;

/// Name of a transaction program: 1 to [`MAX_TPN`] letters, digits and
/// `_ - . $ # @` of ASCII, the first one no dot. So it is also a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tpn(String);

impl Tpn {
    /// `None` if `name` is none.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$#@".contains(&byte);
        let fits = (1..=MAX_TPN).contains(&name.len()) && !name.starts_with('.');
        (fits && name.bytes().all(good)).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.0.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let bytes = reader.string()?;
        let name = std::str::from_utf8(&bytes).ok().and_then(Self::new);
        name.ok_or(reader.bad("it names no transaction program"))
    }
}

impl fmt::Display for Tpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transaction program to start before anybody converses with it.
///
/// It finds a listening Unix socket as descriptor 3, told by `LISTEN_FDS`,
/// `LISTEN_PID` and `LISTEN_FDNAMES` as in sd_listen_fds(3), the socket's path
/// in `BERTH_SOCKET`, and says that it is initialised by `READY=1` as in
/// sd_notify(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest {
    /// Whose conversations it takes.
    pub tpn: Tpn,
    /// What to start.
    pub program: ExecRequest,
}

impl ServiceRequest {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.tpn.put(out);
        self.program.put(out);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        reader.named("StartService");
        Ok(Self { tpn: Tpn::read(reader)?, program: ExecRequest::read_inside(reader)? })
    }
}

/// A conversation to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The transaction program that the user asked for.
    pub tpn: Tpn,
    /// A program to start for this conversation, which has it as its standard
    /// input and output. Without one the service of `tpn` takes it.
    pub program: Option<ExecRequest>,
}

impl Conversation {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.tpn.put(out);
        out.push(u8::from(self.program.is_some()));
        if let Some(program) = &self.program {
            program.put(out);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        reader.named("Converse");
        let tpn = Tpn::read(reader)?;
        let program = match reader.u8()? {
            0 => None,
            1 => Some(ExecRequest::read_inside(reader)?),
            _ => return Err(reader.bad("it is neither with nor without a program")),
        };
        Ok(Self { tpn, program })
    }
}

/// In what a machine must differ from the one that it was made from.
#[derive(Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Random bytes for the kernel's generator, which counts them as such.
    /// 32 to 256 of them.
    pub entropy: Vec<u8>,
    /// The time: nanoseconds since 1970, UTC.
    pub wall_clock_ns: u64,
    /// 1 to 64 letters, digits, dots and hyphens of ASCII.
    pub hostname: String,
    /// What `/etc/machine-id` says, in hexadecimal.
    pub machine_id: [u8; 16],
    /// What the kernel gives as its boot's UUID.
    pub boot_id: [u8; 16],
    /// How many machines were made from the state, this one included.
    pub generation: u64,
}

impl fmt::Debug for Renewal {
    /// Without the entropy, which is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("hostname", &self.hostname)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Renewal {
    /// Whether every field keeps to its range.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        (32..=256).contains(&self.entropy.len())
            && (1..=64).contains(&self.hostname.len())
            && self.hostname.bytes().all(good)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.entropy);
        put_u64(out, self.wall_clock_ns);
        put_bytes(out, self.hostname.as_bytes());
        out.extend_from_slice(&self.machine_id);
        out.extend_from_slice(&self.boot_id);
        put_u64(out, self.generation);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        reader.named("Renew");
        let entropy = reader.bytes()?.to_vec();
        let wall_clock_ns = reader.u64()?;
        let hostname = String::from_utf8(reader.string()?)
            .map_err(|_| reader.bad("its host name is not UTF-8"))?;
        let machine_id = reader.array()?;
        let boot_id = reader.array()?;
        let generation = reader.u64()?;
        let renewal = Self { entropy, wall_clock_ns, hostname, machine_id, boot_id, generation };
        if renewal.is_sound() {
            Ok(renewal)
        } else {
            Err(reader.bad("its entropy or host name has the wrong length or form"))
        }
    }
}

pub(crate) fn put_metadata_request(out: &mut Vec<u8>, id: u32, path: &str) {
    put_u32(out, id);
    out.extend_from_slice(path.as_bytes());
}

pub(crate) fn read_metadata_request(reader: &mut Reader<'_>) -> Result<Message, ProtocolError> {
    let id = reader.named("MetadataRequest").u32()?;
    let path = reader.rest_text()?;
    let fits = path.len() <= MAX_METADATA_PATH && path.starts_with('/');
    if fits && path.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Message::MetadataRequest { id, path })
    } else {
        Err(reader.bad("its path is no path or too long"))
    }
}

pub(crate) fn put_metadata_reply(out: &mut Vec<u8>, id: u32, status: u16, body: &[u8]) {
    put_u32(out, id);
    out.extend_from_slice(&status.to_le_bytes());
    out.extend_from_slice(body);
}

pub(crate) fn read_metadata_reply(reader: &mut Reader<'_>) -> Result<Message, ProtocolError> {
    let id = reader.named("MetadataReply").u32()?;
    let status = reader.u16()?;
    let body = reader.rest().to_vec();
    if !(100..=599).contains(&status) {
        return Err(reader.bad("its status is not one of HTTP"));
    }
    if body.len() > MAX_METADATA_BODY {
        return Err(reader.bad("its body is too long"));
    }
    Ok(Message::MetadataReply { id, status, body })
}
