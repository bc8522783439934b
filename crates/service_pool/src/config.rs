//! What a pool is made of and what it allows: the pool statement, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::names::{Group, MAX_MEMBERS, PoolName, Tpn, UserId};

/// What one pool is told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name; its machines are called after it.
    pub name: PoolName,
    /// Fewest machines, kept ready even if nobody asks for any.
    pub min: u16,
    /// Most machines; up to [`MAX_MEMBERS`]. 0 closes the pool.
    pub max: u16,
    /// The programs its machines are ready for; at least one.
    pub tpns: BTreeSet<Tpn>,
    /// Who may allocate what. What no grant allows is refused.
    pub grants: Vec<Grant>,
    /// How many machines one user may have at once; at least 1.
    pub per_user: u16,
    /// How long claims may wait, and how many.
    pub waiting: WaitingLimits,
    /// How many machines are built at once; at least 1.
    pub builds_at_once: u16,
    /// After so many failed builds in a row nothing is built any more; at
    /// least 1.
    pub failures_until_stop: u16,
    /// How long a machine over `min` must be free before it is given up.
    pub idle: Duration,
}

/// Bounds of a pool's waiting queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingLimits {
    /// Claims that may wait in all.
    pub total: usize,
    /// Claims of one user that may wait.
    pub per_user: usize,
    /// Longest wait. Zero: nobody waits.
    pub longest: Duration,
}

/// One authorisation: who may allocate which programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub who: Who,
    /// Which programs of the pool; `None` for all.
    pub tpns: Option<BTreeSet<Tpn>>,
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever has an id.
    Anybody,
    /// One user.
    User(UserId),
    /// Every user who is in the group.
    Group(Group),
}

/// What is wrong with a pool statement. Its author is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two pools of one name.
    #[error("there is a pool {0} already; give every pool a name of its own")]
    SameName(PoolName),
    /// The bounds of the number of machines do not fit.
    #[error(
        "pool {name}: {min} to {max} machines; the minimum is at most the maximum, and that is at \
         most {MAX_MEMBERS}"
    )]
    Size {
        /// The pool.
        name: PoolName,
        /// Fewest machines.
        min: u16,
        /// Most machines.
        max: u16,
    },
    /// No program.
    #[error("pool {0} names no transaction program; name at least one")]
    NoTpn(PoolName),
    /// A grant of a program that the pool does not offer.
    #[error("pool {name} authorises somebody for {tpn}, which is none of its programs")]
    StrangeTpn {
        /// The pool.
        name: PoolName,
        /// The program.
        tpn: Tpn,
    },
    /// A number that must not be zero.
    #[error("pool {name}: {what} must be at least 1")]
    Zero {
        /// The pool.
        name: PoolName,
        /// Which number.
        what: &'static str,
    },
    /// No pool of this name.
    #[error("there is no pool {0}")]
    NoPool(PoolName),
}

/// Checks the bounds of a pool's size.
pub(crate) fn check_size(name: &PoolName, min: u16, max: u16) -> Result<(), ConfigError> {
    if min <= max && max <= MAX_MEMBERS {
        Ok(())
    } else {
        Err(ConfigError::Size { name: name.clone(), min, max })
    }
}

impl PoolConfig {
    /// Checks what one statement can get wrong by itself.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let name = || self.name.clone();
        check_size(&self.name, self.min, self.max)?;
        if self.tpns.is_empty() {
            return Err(ConfigError::NoTpn(name()));
        }
        let granted = self.grants.iter().flat_map(|grant| grant.tpns.iter().flatten());
        if let Some(tpn) = granted.into_iter().find(|tpn| !self.tpns.contains(*tpn)) {
            return Err(ConfigError::StrangeTpn { name: name(), tpn: tpn.clone() });
        }
        for (what, number) in [
            ("the machines a user may have", self.per_user),
            ("the builds at once", self.builds_at_once),
            ("the failures until builds stop", self.failures_until_stop),
        ] {
            if number == 0 {
                return Err(ConfigError::Zero { name: name(), what });
            }
        }
        Ok(())
    }
}

/// Who may allocate one program.
#[derive(Debug, Default)]
struct Allowed {
    anybody: bool,
    users: BTreeSet<UserId>,
    groups: BTreeSet<Group>,
}

/// The grants of a pool, arranged by program.
#[derive(Debug)]
pub(crate) struct Authorisations(BTreeMap<Tpn, Allowed>);

impl Authorisations {
    pub(crate) fn new(config: &PoolConfig) -> Self {
        let mut by_tpn: BTreeMap<Tpn, Allowed> =
            config.tpns.iter().map(|tpn| (tpn.clone(), Allowed::default())).collect();
        for grant in &config.grants {
            for tpn in grant.tpns.as_ref().unwrap_or(&config.tpns) {
                let allowed = by_tpn.entry(tpn.clone()).or_default();
                match &grant.who {
                    Who::Anybody => allowed.anybody = true,
                    Who::User(user) => drop(allowed.users.insert(user.clone())),
                    Who::Group(group) => drop(allowed.groups.insert(group.clone())),
                }
            }
        }
        Self(by_tpn)
    }

    /// Whether the pool offers `tpn` at all.
    pub(crate) fn offers(&self, tpn: &Tpn) -> bool {
        self.0.contains_key(tpn)
    }

    /// Whether `user`, who is in `groups`, may allocate `tpn`.
    pub(crate) fn allow(&self, tpn: &Tpn, user: &UserId, groups: &[Group]) -> bool {
        self.0.get(tpn).is_some_and(|allowed| {
            allowed.anybody
                || allowed.users.contains(user)
                || groups.iter().any(|group| allowed.groups.contains(group))
        })
    }
}
