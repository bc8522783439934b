//! A connection that is opened before a guest wants it, and that its next connection may
//! have: a session's first, and then as long as it connects again and again.
//!
//! It is one of the session that it was opened for, as its user's role and with the
//! settings that the guest is expected to want; it was never anybody's. Whoever has it
//! looks at the role again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::broker::{Broker, Session, lock};
use crate::server::Opened;
use crate::table::Login;

/// How long one is kept.
const KEPT: Duration = Duration::from_secs(10);
/// Of all sessions at once.
const MOST: usize = 64;
/// How long the server may take to notice that one is gone.
const NOTICED: Duration = Duration::from_millis(100);

/// What a guest sets when it connects.
pub(crate) type Parameters = Vec<(String, String)>;

/// What all sessions' spares share.
pub(crate) struct Spares {
    count: AtomicUsize,
    /// Changes when none is good any more.
    dropped: watch::Sender<u64>,
}

impl Default for Spares {
    fn default() -> Self {
        Self { count: AtomicUsize::new(0), dropped: watch::channel(0).0 }
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
    Begun,
    Here(Box<Kept>),
    /// There are no more.
    Over,
}

/// A connection, and as what it was opened.
pub(crate) struct Kept {
    pub(crate) login: Login,
    pub(crate) parameters: Parameters,
    pub(crate) opened: Opened,
}

impl Spare {
    /// Closes it; there will be none.
    pub(crate) fn end(&mut self) {
        self.state = State::Over;
    }

    /// Takes it, if it is a connection as this login.
    pub(crate) fn take(&mut self, login: &Login) -> Option<Kept> {
        let same = |kept: &Kept| {
            (&kept.login.database, &kept.login.role) == (&login.database, &login.role)
        };
        if !matches!(&self.state, State::Here(kept) if same(kept)) {
            return None;
        }
        match std::mem::take(&mut self.state) {
            State::Here(kept) => Some(*kept),
            _ => None,
        }
    }

    fn begin(&mut self) -> bool {
        let free = matches!(self.state, State::None);
        if free {
            self.state = State::Begun;
        }
        free
    }

    fn put(&mut self, kept: Option<Kept>) -> u64 {
        if matches!(self.state, State::Begun) {
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

/// Opens one for a session, if that has none, and keeps it for a while.
pub(crate) async fn prepare(broker: Arc<Broker>, session: Arc<Session>, parameters: Parameters) {
    let Some(who) = &session.who else { return };
    // Before the table is read: whoever changes it later says so.
    let mut dropped = broker.spares.dropped.subscribe();
    let table = broker.table();
    let Some((_, login)) = table.of(&who.user, &who.groups) else { return };
    let Some(_counted) = Counted::new(&broker.spares) else { return };
    if !lock(&session.spare).begin() {
        return;
    }
    // Whoever asks for one that cannot be had is told why.
    let opened = broker.server.open(login, &parameters, None).await.ok();
    let kept = opened.map(|opened| Kept { login: login.clone(), parameters, opened });
    let number = lock(&session.spare).put(kept);
    tokio::select! {
        () = sleep(KEPT) => {}
        _ = dropped.changed() => {}
    }
    lock(&session.spare).expire(number);
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
