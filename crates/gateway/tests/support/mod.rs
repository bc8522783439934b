//! A gateway in this process, its users, and its programs.

#![allow(dead_code, reason = "each test program uses its part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use async_trait::async_trait;
use gateway::{
    AttachRequest, Authority, Conversation, Credential, Ending, Joined, Limits, NotValid,
    Principal, Refusal, Running, Service, Settings, Tcp, Why, tls,
};
use lu62::{Partner, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::oneshot;

/// What happened at the service's side.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Attached(AttachRequest),
    Ended(Ending),
    Abend(Why),
    /// The conversation was let go.
    Gone,
}

pub(crate) struct Users;

#[async_trait]
impl Authority for Users {
    async fn authenticate(&self, user: &str, given: &Credential) -> Result<Principal, NotValid> {
        let right = match given {
            Credential::Password(text) => text == "secret",
            Credential::Token(text) => text.starts_with("a-token-too-long-for-the-header"),
        };
        if right && user == "alice" { Ok(principal(user)) } else { Err(NotValid) }
    }

    async fn peer(&self, _uid: u32) -> Option<Principal> {
        Some(principal("alice"))
    }

    async fn named(&self, user: &str) -> Option<Principal> {
        (user == "bob").then(|| principal(user))
    }
}

pub(crate) fn principal(user: &str) -> Principal {
    Principal { user: user.to_owned(), groups: vec!["people".to_owned()] }
}

pub(crate) struct Programs(Sender<Event>);

struct Machine {
    events: Sender<Event>,
    ending: Option<oneshot::Receiver<Ending>>,
}

#[async_trait]
impl Conversation for Machine {
    async fn ended(&mut self) -> Ending {
        let ending = match &mut self.ending {
            Some(ending) => ending.await.unwrap_or(Ending::Died),
            None => std::future::pending().await,
        };
        let _ = self.events.send(Event::Ended(ending));
        ending
    }

    fn abend(&mut self, why: Why) {
        let _ = self.events.send(Event::Abend(why));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Gone);
    }
}

#[async_trait]
impl Service for Programs {
    async fn attach(&self, request: AttachRequest) -> Result<Joined, Refusal> {
        let _ = self.0.send(Event::Attached(request.clone()));
        if request.pool() != "test" {
            return Err(Refusal::TpnNotRecognized);
        }
        let program = request.program().unwrap_or("echo").to_owned();
        match program.as_str() {
            "busy" => return Err(Refusal::Retry("all 15 machines are busy".into())),
            "never" => return Err(Refusal::Never("the pool is disabled".into())),
            "waiting" => std::future::pending().await,
            "plain" if request.pip.is_some() => return Err(Refusal::PipNotAllowed),
            _ if request.principal.is_none() && program != "open" => {
                return Err(Refusal::NotAuthorised);
            }
            _ => {}
        }
        let (ours, theirs) = duplex(4096);
        let (output, mut input) = split(ours);
        let handed_on = if request.early.is_empty() {
            0
        } else {
            // As much as there is room for.
            input.write(&request.early).await.unwrap()
        };
        let (read, write) = split(theirs);
        let (end, ending) = oneshot::channel();
        tokio::spawn(async move {
            if let Some(ending) = run(&program, read, write).await {
                let _ = end.send(ending);
            }
        });
        let machine = Machine { events: self.0.clone(), ending: Some(ending) };
        let (input, output) = (Box::new(input), Box::new(output));
        Ok(Joined { input, output, program: Box::new(machine), handed_on })
    }
}

async fn run(
    program: &str,
    mut read: ReadHalf<DuplexStream>,
    mut write: WriteHalf<DuplexStream>,
) -> Option<Ending> {
    match program {
        "count" => {
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.ok()?;
            write.write_all(format!("{}\n", all.len()).as_bytes()).await.ok()?;
        }
        "flood" => while write.write_all(&[7; 4096]).await.is_ok() {},
        "burst" => {
            let mut one = [0];
            read.read_exact(&mut one).await.ok()?;
            write.write_all(&[7; 300_000]).await.ok()?;
        }
        "fails" | "dies" | "lost" => {
            let mut line = [0; 5];
            read.read_exact(&mut line).await.ok()?;
            write.write_all(b"last words").await.ok()?;
            return Some(match program {
                "fails" => Ending::Error(3),
                "dies" => Ending::Died,
                _ => Ending::HostLost,
            });
        }
        "stays" => {
            let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            std::future::pending::<()>().await;
        }
        "deaf" => {
            // Holds its ends open.
            let _both = (read, write);
            std::future::pending::<()>().await;
        }
        _ => {
            tokio::io::copy(&mut read, &mut write).await.ok()?;
        }
    }
    Some(Ending::Confirmed)
}

/// A gateway and what its service sees.
pub(crate) struct Host {
    pub(crate) events: Receiver<Event>,
    pub(crate) running: Running,
    pub(crate) dir: tempfile::TempDir,
}

/// Bounds that a test meets only where it means to.
pub(crate) fn limits() -> Limits {
    Limits::default()
}

pub(crate) fn host(limits: Limits) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let (sender, events) = channel();
    let tls = tls::load_or_make(dir.path(), &["localhost".to_owned()]).unwrap();
    let settings = Settings {
        unix: Some((dir.path().join("lu62.sock"), 0o600)),
        tcp: Some(Tcp { address: ([127, 0, 0, 1], 0).into(), tls }),
        limits,
    };
    let running = Running::start(settings, Arc::new(Users), Arc::new(Programs(sender))).unwrap();
    Host { events, running, dir }
}

impl Host {
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("lu62.sock")
    }

    /// A request over the local socket, as alice.
    pub(crate) fn request(&self, program: &str) -> Request {
        let mut request = Request::initialize(Partner::Socket(self.socket()));
        request.set_tp_name(&format!("test/{program}")).set_security_same("alice");
        request
    }

    /// A request over TLS, of nobody yet.
    pub(crate) fn far_request(&self, program: &str) -> Request {
        let port = self.running.address().unwrap().port();
        let trust = self.dir.path().join("gateway.crt");
        let address = format!("localhost:{port}");
        let mut request = Request::initialize(Partner::Host { address, trust });
        request.set_tp_name(&format!("test/{program}"));
        request
    }

    /// Waits for the next event but an attach.
    pub(crate) fn event(&self) -> Event {
        loop {
            match self.events.recv().unwrap() {
                Event::Attached(_) => {}
                event => return event,
            }
        }
    }

    /// Waits for the next attach.
    pub(crate) fn attached(&self) -> AttachRequest {
        loop {
            if let Event::Attached(request) = self.events.recv().unwrap() {
                return request;
            }
        }
    }
}
