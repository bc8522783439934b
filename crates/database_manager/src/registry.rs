//! The connections there are, and what ends them.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use identity::Subject;
use service_pool::{Group, UserId};
use tokio::sync::watch;

use crate::protocol::{CancelKey, Refusal};
use crate::table::{Login, LoginTable};

/// Connections of one machine at once.
pub const MAX_OF_MACHINE: usize = 32;
/// Connections of all machines at once.
const MAX_IN_ALL: usize = 4096;

/// Why a connection ends before either side wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The machine is not this user's any more.
    Over,
    /// The table gives the user another login, or none.
    Revoked,
}

/// For whom a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) user: UserId,
    pub(crate) groups: Vec<Group>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    /// A connection is gone.
    gone: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    /// The session that it is of.
    session: u64,
    stop: watch::Sender<Option<Stop>>,
    /// Whose it is, once that is known.
    given: Option<Given>,
    /// The key that the guest has, and the server's for the same.
    keys: Option<(CancelKey, CancelKey)>,
    /// The guest has no part in it any more.
    left: bool,
}

struct Given {
    who: Who,
    by: Subject,
    login: Login,
}

/// Why there is no login.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoLogin {
    /// The table has none.
    None,
    /// There are as many connections as the login allows, of which one is just
    /// ending or beginning if `soon`.
    Full { most: u16, soon: bool },
}

impl NoLogin {
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::None => Refusal::new("28000", "this machine's user has no database".to_owned())
                .hint("The host's operator gives one by `berth database grant`."),
            Self::Full { most, .. } => {
                let text = format!("this machine's user has {most} connections already");
                Refusal::new("53300", text).hint("Close one, or share them.")
            }
        }
    }
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a connection of a session; its number, and how it hears of its end.
    pub(crate) fn enter(&self, session: u64) -> Option<(u64, watch::Receiver<Option<Stop>>)> {
        let mut state = self.state();
        let of_session = state.connections.values().filter(|one| one.session == session);
        if of_session.count() >= MAX_OF_MACHINE || state.connections.len() >= MAX_IN_ALL {
            return None;
        }
        state.last += 1;
        let (number, (stop, stopped)) = (state.last, watch::channel(None));
        let connection = Connection { session, stop, given: None, keys: None, left: false };
        state.connections.insert(number, connection);
        Some((number, stopped))
    }

    /// What the connection may be by the table, which is read while nobody can
    /// change it unnoticed: it is a function, called once.
    pub(crate) fn give(
        &self,
        number: u64,
        who: &Who,
        table: impl FnOnce() -> std::sync::Arc<LoginTable>,
    ) -> Result<Login, NoLogin> {
        let mut state = self.state();
        let table = table();
        let (by, login) = table.of(&who.user, &who.groups).ok_or(NoLogin::None)?;
        let same = |one: &&Connection| {
            let same = |given: &Given| given.who.user == who.user && given.by == *by;
            one.given.as_ref().is_some_and(same)
        };
        let (mut count, mut soon) = (0, false);
        for one in state.connections.values().filter(same) {
            count += 1;
            // One that begins may be no connection but a wish to cancel what runs.
            soon |= one.left || one.keys.is_none();
        }
        let most = login.limits.connections;
        if count >= usize::from(most) {
            return Err(NoLogin::Full { most, soon });
        }
        if let Some(connection) = state.connections.get_mut(&number) {
            let (who, by, login) = (who.clone(), by.clone(), login.clone());
            connection.given = Some(Given { who, by, login });
        }
        Ok(login.clone())
    }

    /// The guest's key of a connection, and the server's.
    pub(crate) fn know(&self, number: u64, guest: CancelKey, server: CancelKey) {
        if let Some(connection) = self.state().connections.get_mut(&number) {
            connection.keys = Some((guest, server));
        }
    }

    /// The server's key for that of a guest, if it is one of the same session.
    pub(crate) fn server_key(&self, session: u64, guest: CancelKey) -> Option<CancelKey> {
        let state = self.state();
        let mut own = state.connections.values().filter(|one| one.session == session && !one.left);
        own.find_map(|one| one.keys.filter(|(key, _)| *key == guest).map(|(_, server)| server))
    }

    /// The guest has no part in a connection any more.
    pub(crate) fn leave(&self, number: u64) {
        if let Some(connection) = self.state().connections.get_mut(&number) {
            (connection.left, connection.keys) = (true, None);
        }
        self.gone.notify_all();
    }

    /// A connection is gone at the server as well.
    pub(crate) fn remove(&self, number: u64) {
        self.state().connections.remove(&number);
        self.gone.notify_all();
    }

    /// Ends a session's connections; false if one is still there after `limit`.
    pub(crate) fn end(&self, session: u64, limit: Duration) -> bool {
        self.stop(Stop::Over, limit, |one| one.session == session)
    }

    /// Ends the connections that `table` does not give any more; false if one is
    /// still there after `limit`.
    pub(crate) fn hold_against(&self, table: &LoginTable, limit: Duration) -> bool {
        self.stop(Stop::Revoked, limit, |one| {
            one.given.as_ref().is_some_and(|Given { who, login, .. }| {
                let now = table.of(&who.user, &who.groups);
                let same =
                    |now: &Login| (&now.database, &now.role) == (&login.database, &login.role);
                !now.is_some_and(|(_, now)| same(now))
            })
        })
    }

    fn stop(&self, why: Stop, limit: Duration, which: impl Fn(&Connection) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        let meant = |one: &(&u64, &Connection)| !one.1.left && which(one.1);
        let numbers: Vec<u64> =
            state.connections.iter().filter(meant).map(|(number, _)| *number).collect();
        for number in &numbers {
            if let Some(one) = state.connections.get(number) {
                one.stop.send_replace(Some(why));
            }
        }
        let there = |state: &State| {
            let here = |number| state.connections.get(number).is_some_and(|one| !one.left);
            numbers.iter().any(here)
        };
        while there(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.gone.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::table::Limits;

    fn table(connections: u16) -> Arc<LoginTable> {
        let (database, role) = ("mail".parse().unwrap(), "alice".parse().unwrap());
        let limits = Limits { connections, ..Limits::default() };
        let mut table = LoginTable::default();
        table.grant("user:alice".parse().unwrap(), Login { database, role, limits }).unwrap();
        Arc::new(table)
    }

    fn alice() -> Who {
        Who { user: UserId::new("alice").unwrap(), groups: vec![] }
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_user_has_as_many_connections_as_allowed_in_all_machines() {
        let (registry, table) = (Registry::default(), table(2));
        let give = |number| registry.give(number, &alice(), || Arc::clone(&table));
        let numbers: Vec<u64> = (1..=3).map(|session| registry.enter(session).unwrap().0).collect();
        assert!(give(numbers[0]).is_ok() && give(numbers[1]).is_ok());
        // Neither has said what it wants.
        assert_eq!(give(numbers[2]), Err(NoLogin::Full { most: 2, soon: true }));
        let key = CancelKey { process: 1, secret: 2 };
        numbers[..2].iter().for_each(|number| registry.know(*number, key, key));
        assert_eq!(give(numbers[2]), Err(NoLogin::Full { most: 2, soon: false }));
        registry.leave(numbers[0]);
        assert_eq!(give(numbers[2]), Err(NoLogin::Full { most: 2, soon: true }));
        registry.remove(numbers[0]);
        assert!(give(numbers[2]).is_ok());
        let bob = Who { user: UserId::new("bob").unwrap(), groups: vec![] };
        let none = registry.give(numbers[2], &bob, || Arc::clone(&table));
        assert_eq!(none, Err(NoLogin::None));
    }

    #[test]
    fn a_machine_has_a_bound_of_its_own() {
        let registry = Registry::default();
        assert!((0..MAX_OF_MACHINE).all(|_| registry.enter(1).is_some()));
        assert!(registry.enter(1).is_none());
        assert!(registry.enter(2).is_some());
    }

    #[test]
    fn keys_are_good_in_their_own_session_only() {
        let registry = Registry::default();
        let (number, _) = registry.enter(1).unwrap();
        let guest = CancelKey { process: 1, secret: 2 };
        let server = CancelKey { process: 3, secret: 4 };
        registry.know(number, guest, server);
        assert_eq!(registry.server_key(1, guest), Some(server));
        assert_eq!(registry.server_key(2, guest), None);
        assert_eq!(registry.server_key(1, server), None);
        registry.leave(number);
        assert_eq!(registry.server_key(1, guest), None);
    }

    #[test]
    fn what_the_table_gives_no_more_is_told_so() {
        let registry = Registry::default();
        let (number, stopped) = registry.enter(1).unwrap();
        let (_other, not_stopped) = registry.enter(2).unwrap();
        registry.give(number, &alice(), || table(2)).unwrap();
        assert!(registry.hold_against(&table(1), NOW));
        assert_eq!(*stopped.borrow(), None);
        assert!(!registry.hold_against(&LoginTable::default(), NOW));
        assert_eq!(*stopped.borrow(), Some(Stop::Revoked));
        registry.leave(number);
        assert!(registry.hold_against(&LoginTable::default(), NOW));
        assert_eq!(*not_stopped.borrow(), None);
    }
}
