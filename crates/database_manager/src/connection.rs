//! One connection: from the guest's first packet to the end at the server.
//!
//! ```text
//! guest ──► begin ──► relay ──► finish
//!             │ refused  │ either side, a bound, the host or the table ends it
//!             ▼          ▼
//!           the guest is left, and only then the server is waited for
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::{Broker, Session, lock};
use crate::finish::finish;
use crate::protocol::{
    CancelKey, First, MAX_STARTUP, Refusal, Startup, auth_ok, backend_key, first, negotiate, ready,
};
use crate::registry::{NoLogin, Stop};
use crate::relay::{Ended, Relay};
use crate::server::{Dialled, OpenError, Opened};
use crate::settings::{Parameters, apart};
use crate::spare::{Kept, follow, reserve, take};
use crate::table::Login;

/// How long a guest may take to say what it wants, and the server to let it in.
const BEGIN: Duration = Duration::from_secs(60);
/// How long a guest may take to hear why it is not served any longer.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How long a user's connection that is ending counts before a new one is refused
/// for it.
const ENDING: Duration = Duration::from_secs(3);
/// Requests to encrypt that are answered.
const MAX_ENCRYPT: usize = 2;

type Guest = BufReader<UnixStream>;

/// A place among the connections; given back when it is dropped.
pub(crate) struct Place {
    broker: Arc<Broker>,
    number: u64,
    stop: watch::Receiver<Option<Stop>>,
}

impl Place {
    /// A place for one of the session's, if there is room.
    pub(crate) fn new(broker: &Arc<Broker>, session: &Session) -> Option<Self> {
        let (number, stop) = broker.registry.enter(session.number)?;
        Some(Self { broker: Arc::clone(broker), number, stop })
    }

    async fn stopped(mut stop: watch::Receiver<Option<Stop>>) -> Stop {
        // The sender lives as long as the place does.
        stop.wait_for(Option::is_some).await.ok().and_then(|why| *why).unwrap_or(Stop::Over)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.broker.registry.remove(self.number);
    }
}

/// How a beginning can go.
enum Begun {
    /// The guest may ask.
    In(Login, Opened),
    /// It is done with, and knows why.
    Done,
}

/// Serves a guest at the other end of `stream`.
pub(crate) async fn serve(place: Place, session: Arc<Session>, stream: UnixStream) {
    let mut guest = BufReader::new(stream);
    let begun = {
        let begin = timeout(BEGIN, begin(&place, &session, &mut guest));
        tokio::select! {
            begun = begin => begun.unwrap_or(Ok(Begun::Done)),
            _ = Place::stopped(place.stop.clone()) => Ok(Begun::Done),
        }
    };
    let Ok(Begun::In(login, opened)) = begun else { return };
    let Opened { stream, key, .. } = opened;
    let mut relay = Relay::new(guest, stream);
    let ended = tokio::select! {
        ended = relay.run(login.limits.idle()) => ended,
        stop = Place::stopped(place.stop.clone()) => Ended::Stopped(stop),
        () = until(login.limits.lifetime()) => Ended::TooLong,
    };
    relay.say_why(ended, LAST_WORD).await;
    let server = relay.leave();
    place.broker.registry.leave(place.number);
    finish(&place.broker.server, &login, server, key, ended).await;
}

async fn until(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Hears what the guest wants and lets it in, or says why not.
async fn begin(place: &Place, session: &Arc<Session>, guest: &mut Guest) -> io::Result<Begun> {
    let (heard, ahead) = tokio::join!(hear(guest), ahead(place, session));
    let wanted = match heard? {
        Ok(First::Cancel(key)) => {
            cancel(place, session, key).await;
            return Ok(Begun::Done);
        }
        Ok(First::Startup(wanted)) => Ok(wanted),
        Ok(First::Encrypt) => Err(encrypts()),
        Err(refusal) => Err(refusal),
    };
    let opened = match wanted {
        Ok(wanted) => admit(place, session, guest, wanted, ahead).await?,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok((login, opened)) => Ok(Begun::In(login, opened)),
        Err(refusal) => {
            session.note_refused();
            guest.write_all(&refusal.encode()).await?;
            Ok(Begun::Done)
        }
    }
}

/// What can be done before the guest has said anything: most guests want a
/// connection, and what they say takes longer to come than the server to be ready.
async fn ahead(place: &Place, session: &Arc<Session>) -> Option<Ahead> {
    let who = session.who.as_ref()?;
    let broker = &place.broker;
    let login = broker.registry.give(place.number, who, || broker.table()).ok()?;
    let spare = reserve(broker, session, &login);
    let dialled = if spare.is_some() || lock(&session.spare).is_begun() {
        None
    } else {
        // One that fails now is tried again when it is wanted, and fails with a reason.
        broker.server.dial().await.ok()
    };
    Some(Ahead { login, spare, dialled })
}

struct Ahead {
    login: Login,
    spare: Option<Kept>,
    dialled: Option<Dialled>,
}

impl Ahead {
    /// A connection with these settings: the session's spare one, if it is as good as a
    /// new one.
    async fn open(
        self,
        broker: &Broker,
        session: &Session,
        parameters: &Parameters,
    ) -> Result<Opened, OpenError> {
        let Self { login, spare, dialled } = self;
        if let Some((settings, application)) = apart(parameters)
            && let Some(mut spare) = take(session, spare, &login, &settings).await
            && broker.server.is_still_good(&mut spare, application).await
        {
            return Ok(spare);
        }
        match broker.server.open(&login, parameters, dialled).await {
            Err(error) if error.is_full() && broker.spares.make_room().await => {
                broker.server.open(&login, parameters, None).await
            }
            opened => opened,
        }
    }
}

fn encrypts() -> Refusal {
    let text = "what is said inside of this machine is not encrypted".to_owned();
    Refusal::new("08P01", text).hint("Set sslmode and gssencmode to disable.")
}

/// The first packet that is no request to encrypt: there is nobody between a guest
/// and its broker.
async fn hear(guest: &mut Guest) -> io::Result<Result<First, Refusal>> {
    for _ in 0..=MAX_ENCRYPT {
        let length = guest.read_u32().await? as usize;
        if !(8..=MAX_STARTUP).contains(&length) {
            let text = format!("a first packet has 8 to {MAX_STARTUP} bytes");
            return Ok(Err(Refusal::new("08P01", text)));
        }
        let mut packet = vec![0; length - 4];
        guest.read_exact(&mut packet).await?;
        match first(&packet) {
            Ok(First::Encrypt) => guest.write_all(b"N").await?,
            other => return Ok(other),
        }
    }
    Ok(Ok(First::Encrypt))
}

async fn cancel(place: &Place, session: &Session, key: CancelKey) {
    // As with the server, whoever asks hears nothing of it.
    if let Some(key) = place.broker.registry.server_key(session.number, key) {
        place.broker.server.cancel(key).await;
    }
}

/// Connects to the server as whoever the table says, and tells the guest.
async fn admit(
    place: &Place,
    session: &Arc<Session>,
    guest: &mut Guest,
    wanted: Startup,
    ahead: Option<Ahead>,
) -> io::Result<Result<(Login, Opened), Refusal>> {
    let ahead = match ahead {
        Some(ahead) => Ok(ahead),
        None => {
            login(place, session).await.map(|login| Ahead { login, spare: None, dialled: None })
        }
    };
    let ahead = match ahead {
        Ok(ahead) => ahead,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let login = ahead.login.clone();
    let opened = match ahead.open(&place.broker, session, &wanted.parameters).await {
        Ok(opened) => opened,
        Err(error) => {
            let user = session.who.as_ref().map(|who| who.user.as_str());
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(user, role = %login.role, %error, source, "no connection");
            return Ok(Err(error.refusal()));
        }
    };
    let Some(key) = guest_key() else {
        return Ok(Err(Refusal::new("58000", "there are no random numbers".to_owned())));
    };
    if let Some(server) = opened.key {
        place.broker.registry.know(place.number, key, server);
    }
    session.note_login(&login);
    let mut greeting = wanted.newer.as_deref().map(negotiate).unwrap_or_default();
    greeting.extend(auth_ok());
    greeting.extend_from_slice(&opened.settings);
    greeting.extend(backend_key(key));
    greeting.extend(ready());
    guest.write_all(&greeting).await?;
    if let Some((settings, _)) = apart(&wanted.parameters) {
        follow(&place.broker, session, &login, &settings);
    }
    Ok(Ok((login, opened)))
}

/// What the machine's user is now.
async fn login(place: &Place, session: &Session) -> Result<Login, Refusal> {
    let Some(who) = &session.who else {
        return Err(Refusal::new("28000", "this machine is nobody's just now".to_owned()));
    };
    let registry = &place.broker.registry;
    let until = Instant::now() + ENDING;
    loop {
        match registry.give(place.number, who, || place.broker.table()) {
            Ok(login) => return Ok(login),
            Err(NoLogin::Full { soon: true, .. }) if Instant::now() < until => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(none) => return Err(none.refusal()),
        }
    }
}

/// A key of the broker's own: the server's is nothing for guests.
fn guest_key() -> Option<CancelKey> {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    if rustix::rand::getrandom(&mut bytes, flags).ok()? < bytes.len() {
        return None;
    }
    let (process, secret) = bytes.split_first_chunk::<4>()?;
    let secret = secret.try_into().map(u32::from_be_bytes).ok()?;
    // Clients show the process as a number that is not negative.
    Some(CancelKey { process: u32::from_be_bytes(*process) >> 1, secret })
}
