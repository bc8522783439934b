//! The connection: a local socket or TLS, blocking, with a look at what is there.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::error::ConnectError;

/// Where the partner is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partner {
    /// A local socket.
    Socket(PathBuf),
    /// A host of the network, over TLS.
    Host {
        /// `NAME:PORT`; the certificate must be for NAME.
        address: String,
        /// PEM file of the certificates that are trusted.
        trust: PathBuf,
    },
}

#[derive(Debug)]
pub(crate) enum Transport {
    Socket(UnixStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Transport {
    pub(crate) fn connect(
        partner: &Partner,
        timeout: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        match partner {
            Partner::Socket(path) => {
                let failed = |source| ConnectError::Socket { path: path.clone(), source };
                Ok(Self::Socket(UnixStream::connect(path).map_err(failed)?))
            }
            Partner::Host { address, trust } => connect_tls(address, trust, timeout),
        }
    }

    /// Sends all of `bytes`.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.write_all(bytes),
            Self::Tls(connection, stream) => {
                // Less than the connection buffers, so all of it is taken.
                for part in bytes.chunks(16 * 1024) {
                    connection.writer().write_all(part)?;
                    while connection.wants_write() {
                        connection.write_tls(stream)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits until there is something to be read; false if the time is over.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(self, PollFlags::IN)];
        loop {
            match poll(&mut fds, timeout.as_ref()) {
                Ok(count) => return Ok(count > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what is there into `buffer`, after [`wait`](Self::wait). `None` if
    /// the partner has closed; perhaps nothing, of a part of a TLS record.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<()>> {
        match self {
            Self::Socket(stream) => {
                let mut part = [0; 16 * 1024];
                let count = stream.read(&mut part)?;
                buffer.extend_from_slice(&part[..count]);
                Ok((count > 0).then_some(()))
            }
            Self::Tls(connection, stream) => {
                if connection.read_tls(stream)? == 0 {
                    return Ok(None);
                }
                let state = connection.process_new_packets().map_err(io::Error::other)?;
                let start = buffer.len();
                buffer.resize(start + state.plaintext_bytes_to_read(), 0);
                connection.reader().read_exact(&mut buffer[start..])?;
                let closed = state.peer_has_closed() && buffer.len() == start;
                Ok((!closed).then_some(()))
            }
        }
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(stream) => stream.as_fd(),
            Self::Tls(_, stream) => stream.as_fd(),
        }
    }
}

fn connect_tls(
    address: &str,
    trust: &Path,
    timeout: Option<Duration>,
) -> Result<Transport, ConnectError> {
    let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name)
        .map_err(|_| ConnectError::Name { address: address.to_owned() })?;
    let config = trusting(trust)?;
    let failed = |source| ConnectError::Host { address: address.to_owned(), source };
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    // Small records are questions somebody waits for.
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(timeout).map_err(failed)?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(failed)?;
    }
    stream.set_read_timeout(None).map_err(failed)?;
    Ok(Transport::Tls(Box::new(connection), stream))
}

fn trusting(path: &Path) -> Result<ClientConfig, ConnectError> {
    let untrusted = || ConnectError::Trust { path: path.to_owned() };
    let pem = std::fs::read(path)
        .map_err(|source| ConnectError::TrustFile { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| untrusted())?).map_err(|_| untrusted())?;
    }
    if roots.is_empty() {
        return Err(untrusted());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
