//! The payloads that have an inside, and the reader they are taken apart with.

use crate::ProtocolError;

/// A command to start in the guest.
///
/// Strings are bytes, as in Linux; none may contain a zero byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// Program and arguments; at least the program. Without a slash it is
    /// looked up in the guest's `PATH`.
    pub argv: Vec<Vec<u8>>,
    /// Variables, put on top of the guest's `PATH`, `HOME` and `TERM`.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directory to start in; empty for the home directory.
    pub cwd: Vec<u8>,
}

impl ExecRequest {
    /// A request for this program with these arguments, nothing else set.
    pub fn new<S: AsRef<str>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(|part| part.as_ref().as_bytes().to_vec()).collect();
        Self { argv, ..Self::default() }
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, count(self.argv.len()));
        for part in &self.argv {
            put_bytes(out, part);
        }
        put_u32(out, count(self.env.len()));
        for (name, value) in &self.env {
            put_bytes(out, name);
            put_bytes(out, value);
        }
        put_bytes(out, &self.cwd);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        reader.named("Exec");
        Self::read_inside(reader)
    }

    /// The same inside another message, whose name the reader has.
    pub(crate) fn read_inside(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let mut request = Self::default();
        // Every part takes four bytes or more of a bounded payload, so the
        // counts bound nothing that the payload does not bound already.
        for _ in 0..reader.u32()? {
            request.argv.push(reader.string()?);
        }
        if request.argv.first().is_none_or(Vec::is_empty) {
            return Err(reader.bad("it names no program"));
        }
        for _ in 0..reader.u32()? {
            let name = reader.string()?;
            if name.is_empty() || name.contains(&b'=') {
                return Err(reader.bad("a variable has no usable name"));
            }
            request.env.push((name, reader.string()?));
        }
        request.cwd = reader.string()?;
        Ok(request)
    }
}

/// What the guest says of itself when it begins to serve commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// [`VERSION`](crate::VERSION) of the agent.
    pub version: u32,
    /// The guest's clock since its boot (`CLOCK_BOOTTIME`), in nanoseconds.
    pub uptime_ns: u64,
    /// The guest kernel's release, such as `6.12.57+deb13-riscv64`.
    pub kernel: String,
}

impl Ready {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, self.version);
        put_u64(out, self.uptime_ns);
        out.extend_from_slice(self.kernel.as_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        reader.named("Ready");
        let version = reader.u32()?;
        let uptime_ns = reader.u64()?;
        Ok(Self { version, uptime_ns, kernel: reader.rest_text()? })
    }
}

/// More entries than `u32::MAX` cannot fit a frame: the encoder refuses the
/// whole by its length.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, count(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Takes a payload apart; every step can find it too short.
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    kind: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { left: payload, kind: "unnamed" }
    }

    /// Says whose payload this is, for errors.
    pub(crate) fn named(&mut self, kind: &'static str) -> &mut Self {
        self.kind = kind;
        self
    }

    pub(crate) fn bad(&self, reason: &'static str) -> ProtocolError {
        ProtocolError::BadPayload { kind: self.kind, reason }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, tail) = self.left.split_first_chunk().ok_or(self.bad("it is too short"))?;
        self.left = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes of any kind, after their number.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], ProtocolError> {
        let length = self.u32()? as usize;
        if length > self.left.len() {
            return Err(self.bad("it is too short"));
        }
        let (bytes, tail) = self.left.split_at(length);
        self.left = tail;
        Ok(bytes)
    }

    pub(crate) fn string(&mut self) -> Result<Vec<u8>, ProtocolError> {
        let bytes = self.bytes()?;
        if bytes.contains(&0) {
            return Err(self.bad("a string contains a zero byte"));
        }
        Ok(bytes.to_vec())
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    pub(crate) fn rest_text(&mut self) -> Result<String, ProtocolError> {
        let bytes = self.rest().to_vec();
        String::from_utf8(bytes).map_err(|_| self.bad("its text is not UTF-8"))
    }

    /// Refuses a payload of which something is left over.
    pub(crate) fn end(&mut self, kind: &'static str) -> Result<(), ProtocolError> {
        self.kind = kind;
        if self.left.is_empty() { Ok(()) } else { Err(self.bad("it is too long")) }
    }
}
