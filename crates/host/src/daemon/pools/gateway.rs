//! Joins the gateway to the pools: who users are, and their claims.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gateway::{
    AttachRequest, Authority, Conversation, Credential, Ending, Joined, NotValid, Principal,
    Refusal, Running, Sense, Service, Settings, Tcp, Why,
};
use identity::{Users, Verifier};
use service_pool::{ConversationId, Group, PoolName, Request, Tpn, UserId};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::measure::FirstByte;
use super::{Input, Pools, Told};
use crate::daemon::Shared;
use crate::host_file::{GatewaySpec, PoolSpec, ProgramKind};
use crate::in_full;

/// Proofs of password at once: each takes 19 MiB and some of a CPU.
const PROOFS: usize = 4;

/// How long the system's name of a user is taken to be his.
const NAME: Duration = Duration::from_secs(10);

/// Names that are remembered.
const NAMES: usize = 1024;

/// Machines that a claim may be given until one accepts.
const ATTEMPTS: usize = 3;

/// Characters that a guest may say of why a program cannot be started.
const MAX_REASON: usize = 1024;

/// Starts the gateway.
pub(in crate::daemon) fn start(shared: &Arc<Shared>) -> Result<Running, String> {
    let spec = shared.config.file.gateway.clone();
    let tcp = match spec.listen {
        None => None,
        Some(address) => {
            let tls = match (&spec.certificate, &spec.key) {
                (Some(certificate), Some(key)) => gateway::tls::load(certificate, key, None),
                _ => {
                    let names = ["localhost".to_owned(), address.ip().to_string()];
                    gateway::tls::load_or_make(shared.dir.path(), &names)
                }
            };
            Some(Tcp { address, tls: tls.map_err(|error| in_full(&error))? })
        }
    };
    let settings = Settings {
        unix: Some((shared.dir.gateway_socket(), spec.socket_mode)),
        tcp,
        ..Settings::default()
    };
    let verifier = match &spec.jwks {
        None => None,
        Some(path) => {
            let about = |error: String| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| about(error.to_string()))?;
            Some(Verifier::new(&text, &spec.issuer).map_err(|error| about(error.to_string()))?)
        }
    };
    let users = spec.users.clone().unwrap_or_else(|| shared.dir.users());
    let proofs = Arc::new(tokio::sync::Semaphore::new(PROOFS));
    let known =
        Known { users, verifier: verifier.map(Arc::new), spec, proofs, names: Mutex::default() };
    let service = Claims { shared: Arc::clone(shared) };
    Running::start(settings, Arc::new(known), Arc::new(service)).map_err(|e| in_full(&e))
}

/// Who users are.
struct Known {
    users: PathBuf,
    verifier: Option<Arc<Verifier>>,
    spec: GatewaySpec,
    proofs: Arc<tokio::sync::Semaphore>,
    /// What the system called users, and when.
    names: Mutex<HashMap<u32, (String, Instant)>>,
}

impl Known {
    /// What the system calls a user; asked again after a while.
    async fn name_of(&self, uid: u32) -> Option<String> {
        let lock = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, since)) = lock().get(&uid) {
            if since.elapsed() < NAME {
                return Some(name.clone());
            }
        }
        let name = tokio::task::spawn_blocking(move || {
            let user = uzers::get_user_by_uid(uid)?;
            Some(user.name().to_str()?.to_owned())
        });
        let name = name.await.ok().flatten()?;
        let mut names = lock();
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(uid, (name.clone(), Instant::now()));
        Some(name)
    }

    /// The users file as it is now; none without one.
    fn load(path: &std::path::Path) -> Users {
        if !path.exists() {
            return Users::default();
        }
        Users::load(path).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), "{}", in_full(&error));
            Users::default()
        })
    }

    fn principal(user: &str, groups: Vec<String>) -> Principal {
        Principal { user: user.to_owned(), groups }
    }

    async fn groups(&self, user: &str) -> Vec<String> {
        // Most hosts have no such file, which takes no other thread to see.
        if !self.users.exists() {
            return Vec::new();
        }
        let (path, user) = (self.users.clone(), UserId::new(user));
        let found = tokio::task::spawn_blocking(move || {
            let users = Self::load(&path);
            user.ok().and_then(|user| users.groups(&user).map(texts))
        });
        found.await.ok().flatten().unwrap_or_default()
    }
}

fn texts(groups: &[Group]) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

#[async_trait]
impl Authority for Known {
    async fn authenticate(
        &self,
        user: &str,
        credential: &Credential,
    ) -> Result<Principal, NotValid> {
        let id = UserId::new(user).map_err(|_| NotValid)?;
        match credential.clone() {
            Credential::Password(password) => {
                let _place = self.proofs.acquire().await.map_err(|_| NotValid)?;
                let path = self.users.clone();
                let proof = tokio::task::spawn_blocking(move || {
                    Self::load(&path).authenticate(&id, password.as_bytes()).map(texts)
                });
                let groups = proof.await.ok().flatten().ok_or(NotValid)?;
                Ok(Self::principal(user, groups))
            }
            Credential::Token(token) => {
                let verifier = self.verifier.as_ref().ok_or(NotValid)?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| NotValid)?;
                let claims = verifier.verify(&token, &self.spec.audience, now.as_secs());
                let claims = claims.map_err(|_| NotValid)?;
                // A machine's token says who it is, not who may get another one.
                if claims.user != id || claims.machine.is_some() {
                    return Err(NotValid);
                }
                Ok(Self::principal(user, texts(&claims.groups)))
            }
        }
    }

    async fn peer(&self, uid: u32) -> Option<Principal> {
        let name = self.name_of(uid).await?;
        let groups = self.groups(&name).await;
        Some(Self::principal(&name, groups))
    }

    async fn named(&self, user: &str) -> Option<Principal> {
        UserId::new(user).ok()?;
        let groups = self.groups(user).await;
        Some(Self::principal(user, groups))
    }
}

/// Asks the pools for machines.
struct Claims {
    shared: Arc<Shared>,
}

impl Claims {
    fn specs(&self) -> &[PoolSpec] {
        &self.shared.config.file.pools
    }

    /// Which pool and program a name means: `POOL/TPN`, a pool with one program,
    /// or a program of any pool.
    fn find(&self, name: &str) -> Option<(Option<PoolName>, Tpn)> {
        if let Some((pool, tpn)) = name.split_once('/') {
            return Some((Some(PoolName::new(pool).ok()?), Tpn::new(tpn).ok()?));
        }
        let pool = self.specs().iter().find(|spec| spec.config.name.as_str() == name);
        match pool {
            None => Some((None, Tpn::new(name).ok()?)),
            Some(spec) => match spec.programs.as_slice() {
                [only] => Some((Some(spec.config.name.clone()), only.tpn.clone())),
                _ => None,
            },
        }
    }

    /// A service was started before anybody could give it arguments.
    fn takes_arguments(&self, pool: Option<&PoolName>, tpn: &Tpn) -> bool {
        let named =
            self.specs().iter().filter(|spec| pool.is_none_or(|name| spec.config.name == *name));
        let mut programs = named.flat_map(|spec| &spec.programs).filter(|one| one.tpn == *tpn);
        programs.all(|program| matches!(program.kind, ProgramKind::Run { .. }))
    }
}

#[async_trait]
impl Service for Claims {
    async fn attach(&self, attach: AttachRequest) -> Result<Joined, Refusal> {
        let user = attach.principal.as_ref().map(|principal| principal.user.clone());
        let name = attach.tpn.clone();
        let early = attach.early.clone();
        let (request, arguments) = self.wish(attach).inspect_err(|refusal| {
            self.turned_away(user.as_deref(), &name, refusal.sense());
        })?;
        for _ in 1..ATTEMPTS {
            // Its machine died, or could not be made ready: another one may do.
            if let Some(joined) = self.claim(&request, &arguments, &early).await? {
                return Ok(joined);
            }
        }
        let again = || Refusal::Retry("the machine did not accept; try again".to_owned());
        self.claim(&request, &arguments, &early).await?.ok_or_else(again)
    }

    fn turned_away(&self, user: Option<&str>, tpn: &str, sense: Sense) {
        self.shared.audit_turned_away(user, tpn, &format!("{:08x}", sense.number()));
    }
}

impl Claims {
    /// What an Attach asks of the pools.
    fn wish(&self, attach: AttachRequest) -> Result<(Request, Vec<String>), Refusal> {
        let (pool, tpn) = self.find(&attach.tpn).ok_or(Refusal::TpnNotRecognized)?;
        let principal = attach.principal.ok_or(Refusal::NotAuthorised)?;
        let user = UserId::new(&principal.user).map_err(|_| Refusal::NotAuthorised)?;
        let groups = principal.groups.iter().filter_map(|group| Group::new(group).ok()).collect();
        let arguments = attach.pip.unwrap_or_default().into_iter();
        let arguments = arguments.map(String::from_utf8).collect::<Result<Vec<_>, _>>();
        let arguments = arguments.map_err(|_| Refusal::PipNotValid)?;
        if !arguments.is_empty() && !self.takes_arguments(pool.as_ref(), &tpn) {
            return Err(Refusal::PipNotAllowed);
        }
        Ok((Request { user, groups, tpn, pool }, arguments))
    }

    /// A machine that accepted; none if one was given that did not.
    async fn claim(
        &self,
        request: &Request,
        arguments: &[String],
        early: &[u8],
    ) -> Result<Option<Joined>, Refusal> {
        let socket = |error| Refusal::Retry(format!("the host has no socket to spare: {error}"));
        let since = Instant::now();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(socket)?;
        ours.set_nonblocking(true).map_err(socket)?;
        // Whoever is refused has said it to nobody.
        let handed_on = (&ours).write(early).unwrap_or(0);
        let ours = UnixStream::from_std(ours).map_err(socket)?;
        let (told, mut hear) = unbounded_channel();
        let (request, arguments) = (request.clone(), arguments.to_vec());
        self.shared.pools.tell(Input::Allocate { request, arguments, connection: theirs, told });
        let ending = || Refusal::Retry("the host is ending".to_owned());
        let Some(Told::Claimed(id)) = hear.recv().await else { return Err(ending()) };
        // Dropped on any way out but the last, it withdraws the claim.
        let mut claim = Claim { pools: self.shared.pools.clone(), id, over: false };
        match hear.recv().await {
            Some(Told::Accepted { member }) => {
                tracing::debug!(conversation = %id, member, "accepted");
                let (output, input) = ours.into_split();
                let output =
                    FirstByte::new(output, since, member, Arc::clone(self.shared.station()));
                let program = Box::new(Program { claim, hear });
                let (input, output) = (Box::new(input), Box::new(output));
                Ok(Some(Joined { input, output, program, handed_on }))
            }
            Some(Told::Refused(refusal)) => {
                claim.over = true;
                Err(refuse(refusal))
            }
            Some(Told::Ended { how: service_pool::Ending::NotStarted, reason }) => {
                claim.over = true;
                // The guest's own words.
                let reason: String = reason.unwrap_or_default().chars().take(MAX_REASON).collect();
                Err(Refusal::Never(format!("the program cannot be started: {reason}")))
            }
            Some(Told::Ended { .. }) => {
                claim.over = true;
                Ok(None)
            }
            Some(Told::Claimed(_)) | None => Err(ending()),
        }
    }
}

fn refuse(refusal: service_pool::Refusal) -> Refusal {
    match refusal {
        service_pool::Refusal::UnknownTpn => Refusal::TpnNotRecognized,
        service_pool::Refusal::NotAuthorised => Refusal::NotAuthorised,
        other if other.retry() => Refusal::Retry(other.to_string()),
        other => Refusal::Never(other.to_string()),
    }
}

/// A claim, withdrawn or ended when it is dropped.
struct Claim {
    pools: Pools,
    id: ConversationId,
    over: bool,
}

impl Claim {
    fn end(&mut self, how: service_pool::Ending) {
        if !std::mem::replace(&mut self.over, true) {
            self.pools.tell(Input::Abend { conversation: self.id, how });
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end(service_pool::Ending::LostConnection);
    }
}

/// A program in a machine.
struct Program {
    claim: Claim,
    hear: UnboundedReceiver<Told>,
}

#[async_trait]
impl Conversation for Program {
    async fn ended(&mut self) -> Ending {
        let told = loop {
            match self.hear.recv().await {
                Some(Told::Ended { how, .. }) => break Some(how),
                Some(_) => {}
                None => break None,
            }
        };
        self.claim.over = true;
        match told {
            Some(service_pool::Ending::Confirmed) => Ending::Confirmed,
            Some(service_pool::Ending::ProgramAbend) => Ending::Error(1),
            Some(service_pool::Ending::Deadline) => Ending::Deadline,
            Some(service_pool::Ending::ClientAbend | service_pool::Ending::LostConnection) => {
                Ending::Died
            }
            Some(
                service_pool::Ending::NotAccepted
                | service_pool::Ending::NotStarted
                | service_pool::Ending::MachineDied,
            )
            | None => Ending::HostLost,
        }
    }

    fn abend(&mut self, why: Why) {
        self.claim.end(match why {
            Why::User => service_pool::Ending::ClientAbend,
            Why::Deadline | Why::Idle => service_pool::Ending::Deadline,
            Why::Vanished | Why::Gateway => service_pool::Ending::LostConnection,
        });
    }
}
