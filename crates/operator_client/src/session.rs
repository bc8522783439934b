//! Connections that become a guest's.

use std::io;
use std::os::unix::net::UnixStream;

use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use operator_api::model::Exec;
use serde::Serialize;

use crate::commands::segment;
use crate::error::ClientError;
use crate::{Client, Nothing};

/// A connection that has become a guest's.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub stream: UnixStream,
    /// What was already read of it.
    pub read: Vec<u8>,
}

impl Client {
    /// Runs a command in a guest: the session carries frames of `agent_protocol`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn exec(&mut self, name: &str, exec: &Exec) -> Result<Session, ClientError> {
        self.become_guests(&format!("/v1/partitions/{}/exec", segment(name)), "berth-exec", exec)
    }

    /// A guest's console: the session is what is said there, and what is typed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn attach(&mut self, name: &str) -> Result<Session, ClientError> {
        let path = format!("/v1/partitions/{}/attach", segment(name));
        self.become_guests(&path, "berth-console", &Nothing {})
    }

    /// What a guest that does not run said last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn last_words(&mut self, name: &str) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/partitions/{}/last-words", segment(name));
        self.connection.text(&path).map(Vec::from)
    }

    fn become_guests(
        &mut self,
        path: &str,
        protocol: &'static str,
        body: &impl Serialize,
    ) -> Result<Session, ClientError> {
        let upgraded = self.upgraded(path, protocol, body)?;
        Ok(self.session(upgraded)?)
    }

    fn upgraded(
        &mut self,
        path: &str,
        protocol: &'static str,
        body: &impl Serialize,
    ) -> Result<Upgraded, ClientError> {
        let mut request = self.connection.request(Method::POST, path, Some(body))?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocol));
        let response = self.connection.response(request)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Malformed(format!("status {}", response.status())));
        }
        Ok(self.connection.runtime.block_on(hyper::upgrade::on(response))?)
    }

    /// A local connection itself; what comes by the network is copied by a thread
    /// that ends with it.
    fn session(&mut self, upgraded: Upgraded) -> io::Result<Session> {
        let upgraded = match upgraded.downcast::<TokioIo<tokio::net::UnixStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner().into_std()?;
                stream.set_nonblocking(false)?;
                return Ok(Session { stream, read: parts.read_buf.to_vec() });
            }
            Err(upgraded) => upgraded,
        };
        let (stream, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The connection's own socket stays where it was made.
        let old = std::mem::replace(&mut self.connection.runtime, runtime);
        std::thread::Builder::new().name("session".into()).spawn(move || {
            old.block_on(async move {
                let mut theirs = tokio::net::UnixStream::from_std(theirs)?;
                let mut upgraded = TokioIo::new(upgraded);
                tokio::io::copy_bidirectional(&mut upgraded, &mut theirs).await
            })
        })?;
        Ok(Session { stream, read: Vec::new() })
    }
}
