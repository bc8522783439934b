//! A connection that is opened before a guest wants it, and that its next connection may
//! have: when a session begins, and whenever it has connected.
//!
//! It is one of the session that it was opened for, as its user's role and with the
//! settings that the guest is expected to want; it was never anybody's. Whoever has it
//! looks at the role again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::broker::{Broker, Session, lock};
use crate::names::SqlName;
use crate::server::Opened;
use crate::settings::Parameters;
use crate::table::Login;

/// How long one is kept.
const KEPT: Duration = Duration::from_secs(60);
/// Of all sessions at once.
const MOST: usize = 64;
/// Logins whose settings are known at once.
const MOST_LOGINS: usize = 1024;
/// Longest of these settings, in bytes.
const LONGEST: usize = 256;
/// How long the server may take to notice that one is gone.
const NOTICED: Duration = Duration::from_millis(100);

/// What all sessions' spares share.
pub(crate) struct Spares {
    count: AtomicUsize,
    expected: Mutex<Expected>,
    /// Changes when none is good any more.
    dropped: watch::Sender<u64>,
}

impl Default for Spares {
    fn default() -> Self {
        let (count, expected) = (AtomicUsize::new(0), Mutex::default());
        Self { count, expected, dropped: watch::channel(0).0 }
    }
}

impl Spares {
    /// Closes all.
    pub(crate) fn drop_all(&self) {
        self.dropped.send_modify(|number| *number += 1);
    }

    /// Closes all and waits until the server has room for others; false if there were
    /// none.
    pub(crate) async fn make_room(&self) -> bool {
        let some = self.count.load(Ordering::Relaxed) > 0;
        if some {
            self.drop_all();
            sleep(NOTICED).await;
        }
        some
    }
}

/// With which settings a connection is expected.
#[derive(Default)]
struct Expected {
    last: Parameters,
    of: HashMap<(SqlName, SqlName), Parameters>,
}

impl Expected {
    /// Those of the login's last connection, or else of the last at all: other users'
    /// programs are mostly of the same kind.
    fn by(&self, login: &Login) -> Parameters {
        let login = (login.database.clone(), login.role.clone());
        self.of.get(&login).unwrap_or(&self.last).clone()
    }

    fn learn(&mut self, login: &Login, parameters: &Parameters) {
        if parameters.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > LONGEST
        {
            return;
        }
        if self.of.len() >= MOST_LOGINS {
            self.of.clear();
        }
        self.last.clone_from(parameters);
        self.of.insert((login.database.clone(), login.role.clone()), parameters.clone());
    }
}

/// A session's.
#[derive(Default)]
pub(crate) struct Spare {
    state: State,
    /// Counts what was kept.
    number: u64,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// Is being opened.
    Begun(Begun),
    Here(Box<Kept>),
    /// There are no more.
    Over,
}

/// As what one is opened.
#[derive(Clone, PartialEq, Eq)]
struct Kind {
    database: SqlName,
    role: SqlName,
    parameters: Parameters,
}

struct Begun {
    kind: Kind,
    /// Closed when it is opened; nobody has it once somebody waits for it.
    opened: Option<watch::Receiver<()>>,
}

/// A connection, and as what it was opened.
pub(crate) struct Kept {
    kind: Kind,
    opened: Opened,
    /// Closed when it is no spare one any more.
    _spare: watch::Sender<()>,
}

impl Spare {
    /// Closes it; there will be none.
    pub(crate) fn end(&mut self) {
        self.state = State::Over;
    }

    /// Whether one will be there soon that nobody waits for, with whatever settings.
    pub(crate) fn is_begun(&self) -> bool {
        matches!(&self.state, State::Begun(begun) if begun.opened.is_some())
    }

    fn reserve(&mut self, login: &Login) -> Option<Kept> {
        let same = |kind: &Kind| kind.database == login.database && kind.role == login.role;
        match std::mem::take(&mut self.state) {
            State::Here(kept) if same(&kept.kind) => Some(*kept),
            state => {
                self.state = state;
                None
            }
        }
    }

    fn take(&mut self, kind: &Kind) -> Option<Opened> {
        match std::mem::take(&mut self.state) {
            State::Here(kept) if kept.kind == *kind => Some(kept.opened),
            // It is in the way of one that is wanted.
            State::Here(_) => None,
            state => {
                self.state = state;
                None
            }
        }
    }

    fn awaited(&mut self, wanted: &Kind) -> Option<watch::Receiver<()>> {
        match &mut self.state {
            State::Begun(Begun { kind, opened }) if kind == wanted => opened.take(),
            _ => None,
        }
    }

    fn begin(&mut self, kind: &Kind) -> Option<watch::Sender<()>> {
        match &self.state {
            State::None => {}
            State::Here(kept) if kept.kind != *kind => {}
            _ => return None,
        }
        let (sender, opened) = watch::channel(());
        self.state = State::Begun(Begun { kind: kind.clone(), opened: Some(opened) });
        Some(sender)
    }

    fn put(&mut self, kept: Option<Kept>) -> u64 {
        if matches!(self.state, State::Begun(_)) {
            self.state = kept.map_or(State::None, |kept| State::Here(Box::new(kept)));
        }
        self.number += 1;
        self.number
    }

    /// Closes the one of this number.
    fn expire(&mut self, number: u64) {
        if self.number == number && matches!(self.state, State::Here(_)) {
            self.state = State::None;
        }
    }
}

impl Kind {
    fn new(login: &Login, parameters: &Parameters) -> Self {
        let (database, role) = (login.database.clone(), login.role.clone());
        Self { database, role, parameters: parameters.clone() }
    }
}

/// Sets the session's aside for a connection as this login that has just begun; the next
/// one is opened at once.
pub(crate) fn reserve(broker: &Arc<Broker>, session: &Arc<Session>, login: &Login) -> Option<Kept> {
    let kept = lock(&session.spare).reserve(login)?;
    tokio::spawn(prepare(Arc::clone(broker), Arc::clone(session)));
    Some(kept)
}

/// What was set aside, or else the session's, if it is a connection as this login with
/// these settings; waits for one that is being opened.
pub(crate) async fn take(
    session: &Session,
    reserved: Option<Kept>,
    login: &Login,
    parameters: &Parameters,
) -> Option<Opened> {
    let kind = Kind::new(login, parameters);
    if let Some(kept) = reserved {
        return (kept.kind == kind).then_some(kept.opened);
    }
    let awaited = lock(&session.spare).awaited(&kind);
    if let Some(mut opened) = awaited {
        // Nothing is sent; it is closed.
        let _ = opened.changed().await;
    }
    lock(&session.spare).take(&kind)
}

/// A login's program has connected with these settings: its next connection is opened.
pub(crate) fn follow(
    broker: &Arc<Broker>,
    session: &Arc<Session>,
    login: &Login,
    parameters: &Parameters,
) {
    lock(&broker.spares.expected).learn(login, parameters);
    tokio::spawn(prepare(Arc::clone(broker), Arc::clone(session)));
}

/// Opens one for a session, if that has none, and keeps it for a while.
pub(crate) async fn prepare(broker: Arc<Broker>, session: Arc<Session>) {
    let Some(who) = &session.who else { return };
    // Before the table is read: whoever changes it later says so.
    let mut dropped = broker.spares.dropped.subscribe();
    let table = broker.table();
    let Some((_, login)) = table.of(&who.user, &who.groups) else { return };
    let Some(_counted) = Counted::new(&broker.spares) else { return };
    let Some((number, mut over)) = open(&broker, &session, login).await else { return };
    tokio::select! {
        () = sleep(KEPT) => {}
        _ = dropped.changed() => {}
        _ = over.changed() => {}
    }
    lock(&session.spare).expire(number);
}

/// Opens one, and another if other settings are expected meanwhile; its number, and what
/// is closed when it is no spare one any more.
async fn open(
    broker: &Broker,
    session: &Session,
    login: &Login,
) -> Option<(u64, watch::Receiver<()>)> {
    let expected = || lock(&broker.spares.expected).by(login);
    for _ in 0..2 {
        let kind = Kind::new(login, &expected());
        let begun = lock(&session.spare).begin(&kind)?;
        // Whoever asks for one that cannot be had is told why.
        let opened = broker.server.open(login, &kind.parameters, None).await.ok();
        let mut spare = lock(&session.spare);
        // With the lock: who expects others from now on finds it there.
        if opened.is_some() && kind.parameters != expected() {
            spare.put(None);
            continue;
        }
        let (is_spare, over) = watch::channel(());
        let number = spare.put(opened.map(|opened| Kept { kind, opened, _spare: is_spare }));
        drop((spare, begun));
        return Some((number, over));
    }
    None
}

struct Counted<'a>(&'a Spares);

impl<'a> Counted<'a> {
    fn new(spares: &'a Spares) -> Option<Self> {
        let counted = Self(spares);
        (spares.count.fetch_add(1, Ordering::Relaxed) < MOST).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
