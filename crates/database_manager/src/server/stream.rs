//! The byte stream to the server.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::Address;

/// Anything that bytes pass through both ways.
pub(crate) trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// What is read is buffered.
pub(crate) type Stream = BufReader<Box<dyn Both>>;

/// A stream as it is.
pub(super) async fn plain(address: &Address) -> io::Result<Stream> {
    Ok(BufReader::new(raw(address).await?))
}

/// A stream inside of TLS, to the server whose name the address has.
pub(super) async fn encrypted(
    address: &Address,
    config: Arc<rustls::ClientConfig>,
) -> io::Result<Stream> {
    let mut raw = raw(address).await?;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    raw.write_all(&request).await?;
    raw.flush().await?;
    // One byte and no more: what came with it would count as encrypted.
    if raw.read_u8().await? != b'S' {
        let why = "it does not speak TLS; set `ssl = on` there, or leave `authority` out";
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let host = match address {
        Address::Unix { .. } => "localhost",
        Address::Tcp { host, .. } => host,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, raw).await?;
    Ok(BufReader::new(Box::new(stream)))
}

async fn raw(address: &Address) -> io::Result<Box<dyn Both>> {
    match address {
        Address::Unix { directory, port } => {
            let stream = UnixStream::connect(Address::socket(directory, *port)).await?;
            Ok(Box::new(stream))
        }
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}
