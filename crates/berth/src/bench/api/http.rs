//! A client of the local socket that asks one thing after the other on one
//! connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer's head, and of its body.
const MOST: u64 = 1 << 20;

/// A connection that is kept.
pub(super) struct Http {
    lines: BufReader<UnixStream>,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Http {
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// Status and body of the answer to a request like `GET /v1/status`.
    pub(super) fn ask(&mut self, request: &str, body: &str) -> io::Result<(u16, Vec<u8>)> {
        let mut text = format!("{request} HTTP/1.1\r\nHost: localhost\r\n");
        if !body.is_empty() {
            text +=
                &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        self.lines.get_mut().write_all(text.as_bytes())?;
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| malformed("no status"))?;
        let mut length = 0_u64;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().map_err(|_| malformed("no length"))?;
                }
            }
        }
        if length > MOST {
            return Err(malformed("too long"));
        }
        let mut body = Vec::new();
        (&mut self.lines).take(length).read_to_end(&mut body)?;
        Ok((status, body))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.lines).take(MOST).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
