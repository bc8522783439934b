//! The thread that owns the conversation manager.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use main_storage::PartitionName;
use service_pool::{
    Action, ConversationId, ConversationManager, Ending, Event, Group, MemberId, MemberState,
    PoolName, Request, Tpn, UserId, Worn,
};
use tokio::sync::mpsc::UnboundedSender;

use super::measure::Measures;
use super::renewal::renewal;
use super::status::MemberPutBack;
use super::{Input, Told};
use crate::daemon::Shared;
use crate::daemon::process::Process;
use crate::host_file::{PoolSpec, ProgramKind};
use crate::link::{Order, Program, ProgramEnd, PutBack, Report};

/// How long a machine may take from its assignment to its acceptance.
const ACCEPT: Duration = Duration::from_secs(15);
/// How long a machine's devices may take to come to rest before it is put back.
const REST: Duration = Duration::from_secs(10);
/// How long putting a machine back may take in all.
const RESTORE: Duration = Duration::from_secs(30);
/// Longest time without a look at the clock.
const HOUR: Duration = Duration::from_secs(3600);

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) manager: ConversationManager,
    pub(super) started: Instant,
    pub(super) conversations: BTreeMap<ConversationId, Conversation>,
    /// What its worker calls a conversation.
    numbers: BTreeMap<u64, ConversationId>,
    next: u64,
    /// Machines that were made from captures, in all.
    generation: u64,
    /// Machines that somebody used by their primary id since they were put
    /// back.
    pub(super) visited: BTreeSet<MemberId>,
    /// Who waits for a machine to be awake.
    visitors: BTreeMap<MemberId, Vec<Sender<()>>>,
    /// Machines that are put back before they are woken for a conversation.
    waking: BTreeMap<MemberId, ConversationId>,
    /// Machines that must not be put back but made anew, and why.
    suspect: BTreeMap<MemberId, String>,
    /// Machines that are being put back, and since when.
    restoring: BTreeMap<MemberId, Instant>,
    pub(super) alarms: BTreeMap<PoolName, String>,
    /// How long machines took to the first output of a conversation that is over.
    first_outputs: BTreeMap<MemberId, Option<u64>>,
    /// What it took the last time.
    pub(super) put_back: BTreeMap<MemberId, MemberPutBack>,
    /// How long users and machines take.
    pub(super) measures: Measures,
}

/// A claim, from its beginning to its end.
pub(super) struct Conversation {
    pub(super) user: UserId,
    pub(super) groups: Vec<Group>,
    pub(super) tpn: Tpn,
    pub(super) pool: Option<PoolName>,
    arguments: Vec<String>,
    number: u64,
    connection: Option<UnixStream>,
    told: UnboundedSender<Told>,
    pub(super) member: Option<MemberId>,
    /// When something must have happened.
    deadline: Option<Instant>,
    /// Its machine differs from its like.
    renewed: bool,
    accepted: bool,
    /// What the program said last.
    words: String,
    /// Its program is started for it.
    starts: bool,
    /// Why it could not be.
    reason: Option<String>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, started: Instant) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let measures = Measures::new(Arc::clone(&shared));
        Self {
            measures,
            shared,
            manager: ConversationManager::new(since.as_secs()),
            started,
            conversations: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 1,
            generation: 0,
            visited: BTreeSet::new(),
            visitors: BTreeMap::new(),
            waking: BTreeMap::new(),
            restoring: BTreeMap::new(),
            suspect: BTreeMap::new(),
            alarms: BTreeMap::new(),
            first_outputs: BTreeMap::new(),
            put_back: BTreeMap::new(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn run(mut self, inputs: Receiver<Input>) {
        for spec in self.shared.config.file.pools.clone() {
            match self.manager.add_pool(self.now(), spec.config.clone()) {
                Ok(actions) => self.carry_out(actions),
                // The host file was checked.
                Err(error) => tracing::error!(%error, "a pool is left out"),
            }
        }
        loop {
            let mut asked = false;
            match inputs.recv_timeout(self.patience()) {
                Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(input) => {
                    asked = matches!(input, Input::Status(_) | Input::Waiting(_));
                    self.hear(input);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let due = self.patience().is_zero();
            self.look_at_clock();
            self.admit_visitors();
            // Who only asks changes nothing.
            if !asked || due {
                self.shared.pools_changed();
            }
        }
    }

    /// How long nothing can be due.
    fn patience(&self) -> Duration {
        let manager = self.manager.deadline().map(|at| at.saturating_sub(self.now()));
        let deadlines = self.conversations.values().filter_map(|one| one.deadline);
        let deadlines = deadlines.chain(self.restoring.values().map(|since| *since + RESTORE));
        let own = deadlines.min().map(|at| at.saturating_duration_since(Instant::now()));
        manager.into_iter().chain(own).min().unwrap_or(HOUR).min(HOUR)
    }

    fn look_at_clock(&mut self) {
        self.step(Event::Tick);
        let now = Instant::now();
        let due = |one: &Conversation| one.deadline.is_some_and(|at| at <= now);
        let late: Vec<_> =
            self.conversations.iter().filter(|(_, one)| due(one)).map(|(id, _)| *id).collect();
        for id in late {
            match self.conversations.get(&id) {
                // Whatever keeps it silent, it is not handed out again.
                Some(one) if !one.accepted => {
                    let why = format!("it did not accept within {} s", ACCEPT.as_secs());
                    self.suspect.extend(one.member.clone().map(|member| (member, why)));
                    self.end(id, Ending::NotAccepted);
                }
                _ => self.end(id, Ending::Deadline),
            }
        }
        let late = self.restoring.iter().filter(|(_, since)| **since + RESTORE <= now);
        let late: Vec<_> = late.map(|(member, _)| member.clone()).collect();
        for member in late {
            self.broken(member, format!("it took over {} s", RESTORE.as_secs()));
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        let actions = self.manager.step(self.now(), event);
        self.carry_out(actions);
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Allocate { request, arguments, connection, told } => {
                self.claim(request, arguments, connection, told);
            }
            Input::Abend { conversation, how: Ending::LostConnection } => {
                self.conversations.get_mut(&conversation).into_iter().for_each(|one| {
                    one.deadline = None;
                });
                self.step(Event::ClientGone(conversation));
                self.forget_waiting(conversation);
            }
            Input::Abend { conversation, how } => self.end(conversation, how),
            Input::Report { member, report } => {
                if let Ok(member) = member.as_str().parse() {
                    self.hear_worker(member, report);
                }
            }
            Input::Gone { member, why } => {
                if let Ok(member) = member.as_str().parse::<MemberId>() {
                    self.visited.remove(&member);
                    self.restoring.remove(&member);
                    self.end_sessions(&member);
                    self.step(Event::Died { member, why });
                }
            }
            Input::Built { member, result: Ok(()) } => {
                self.measures.built(&member);
                self.step(Event::Built(member));
            }
            // A host that ends builds nothing more.
            Input::Built { result: Err(_), .. } if self.shared.board().closing => {}
            Input::Built { member, result: Err(why) } => {
                tracing::error!(%member, why, "a machine could not be built");
                self.step(Event::BuildFailed { member, why });
            }
            Input::Destroyed(member) => self.step(Event::Destroyed(member)),
            Input::Visit { member, awake } => {
                // Any other is no machine of a pool's: nothing is to be waited for.
                if let Ok(member) = member.as_str().parse() {
                    self.visitors.entry(member).or_default().push(awake);
                }
            }
            Input::Status(answer) => drop(answer.send(self.status())),
            Input::Resume { pool, done } => {
                let result = self.operate(&pool, ConversationManager::resume);
                let _ = done.send(result);
            }
            Input::Resize { pool, bounds: (min, max), done } => {
                let most = self.shared.config.file.pools.iter();
                let most = most.filter(|one| one.config.name.as_str() == pool);
                let most = most.map(|one| one.config.max).max().unwrap_or(0);
                let result = if max > most {
                    Err(format!("the host file gives {pool} at most {most} machines"))
                } else {
                    self.operate(&pool, |manager, now, name| manager.resize(now, name, min, max))
                };
                let _ = done.send(result);
            }
            Input::Waiting(answer) => drop(answer.send(self.waiting())),
            Input::End => {}
        }
    }

    fn operate(
        &mut self,
        pool: &str,
        act: impl FnOnce(
            &mut ConversationManager,
            Duration,
            &PoolName,
        ) -> Result<Vec<Action>, service_pool::ConfigError>,
    ) -> Result<(), String> {
        let name = PoolName::new(pool).map_err(|error| error.to_string())?;
        let now = self.now();
        let actions = act(&mut self.manager, now, &name).map_err(|error| error.to_string())?;
        self.carry_out(actions);
        Ok(())
    }

    fn claim(
        &mut self,
        request: Request,
        arguments: Vec<String>,
        connection: UnixStream,
        told: UnboundedSender<Told>,
    ) {
        let (user, tpn) = (request.user.clone(), request.tpn.clone());
        let (groups, pool) = (request.groups.clone(), request.pool.clone());
        let (id, actions) = self.manager.allocate(self.now(), request);
        let number = self.next;
        self.next += 1;
        let _ = told.send(Told::Claimed(id));
        self.measures.claimed(id);
        self.numbers.insert(number, id);
        let (connection, member, words) = (Some(connection), None, String::new());
        let (deadline, accepted, reason) = (None, false, None);
        let one = Conversation {
            user,
            groups,
            pool,
            arguments,
            tpn,
            number,
            connection,
            told,
            member,
            deadline,
            accepted,
            words,
            starts: false,
            renewed: false,
            reason,
        };
        self.conversations.insert(id, one);
        self.carry_out(actions);
    }

    /// A claim that got no machine and is gone leaves nothing behind.
    fn forget_waiting(&mut self, id: ConversationId) {
        if self.conversations.get(&id).is_some_and(|one| one.member.is_none()) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ConversationId) -> Option<Conversation> {
        self.measures.forget(id);
        let one = self.conversations.remove(&id)?;
        self.numbers.remove(&one.number);
        Some(one)
    }

    /// Ends a conversation that has a machine.
    fn end(&mut self, id: ConversationId, how: Ending) {
        if let Some(one) = self.conversations.get_mut(&id) {
            one.deadline = None;
            self.step(Event::Ended { conversation: id, how });
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign { member, conversation, .. } => self.assign(member, conversation),
                Action::Refuse { conversation, refusal } => {
                    if let Some(one) = self.conversations.get(&conversation) {
                        self.measures.refused(conversation, one, refusal);
                    }
                    if let Some(one) = self.forget(conversation) {
                        self.shared.audit_refusal(&one, conversation, refusal);
                        let _ = one.told.send(Told::Refused(refusal));
                    }
                }
                Action::Revoke(worn) => self.revoke(&worn),
                Action::Build(member) | Action::Rebuild(member) => {
                    self.measures.building(&member);
                    self.shared.build_later(member);
                }
                Action::Restore(member) => self.restore(member),
                Action::Destroy(member) => self.shared.destroy_later(member),
                Action::RaiseAlarm { pool, failures, why } => {
                    tracing::error!(%pool, failures, why, "the pool builds no more machines");
                    self.shared.fail_pool(&pool, &why);
                    self.alarms.insert(pool, why);
                }
                Action::ClearAlarm(pool) => {
                    tracing::info!(%pool, "the pool builds machines again");
                    self.alarms.remove(&pool);
                }
            }
        }
    }

    fn process(&self, member: &MemberId) -> Option<Arc<Process>> {
        let name = PartitionName::new(&member.to_string()).ok()?;
        self.shared.board().partitions.get(&name)?.running().ok()
    }

    /// The machine has nothing of anybody's any more.
    fn end_sessions(&self, member: &MemberId) {
        if let Ok(name) = PartitionName::new(&member.to_string()) {
            self.shared.end_files(&name);
            if let Some(used) = self.shared.end_database(&name) {
                self.shared.audit_database(member, used);
            }
        }
    }

    fn give(&self, member: &MemberId, order: &Order) -> bool {
        self.process(member).is_some_and(|process| process.give(order, &[]).is_ok())
    }

    /// Wakes the machine, makes it differ from its like and has its program run.
    /// Until then it is the capture, byte for byte.
    fn assign(&mut self, member: MemberId, id: ConversationId) {
        let Some(one) = self.conversations.get_mut(&id) else { return };
        one.member = Some(member.clone());
        one.deadline = Some(Instant::now() + ACCEPT);
        self.measures.assigned(id, &member);
        self.waking.insert(member.clone(), id);
        if self.visited.remove(&member) {
            // Clean, whatever its administrator did.
            return self.restore(member);
        }
        self.wake(&member, id);
    }

    fn wake(&mut self, member: &MemberId, id: ConversationId) {
        self.waking.remove(member);
        self.generation += 1;
        let renewal = renewal(member.to_string(), self.generation);
        // Before it is awake: its files and database are the user's from the first
        // moment on, and without files it would be another machine than the pool
        // promises.
        if let (Some(one), Some(process)) = (self.conversations.get(&id), self.process(member)) {
            let who = (&one.user, &*one.groups);
            if let Err(reason) = self.shared.begin_files(&process, Some(who)) {
                tracing::error!(%member, user = %one.user, reason, "no files, so no conversation");
                return self.end(id, Ending::NotAccepted);
            }
            self.shared.begin_database(&process, Some((id, &one.user, &one.groups)));
        }
        let renewed = renewal.is_ok_and(|renewal| {
            self.give(member, &Order::Wake) && self.give(member, &Order::Renew(Box::new(renewal)))
        });
        // Its agent takes one after the other, and accepts nothing if the first fails:
        // so nothing has to be waited for in between.
        let woken = renewed && self.converse(member, id);
        tracing::debug!(conversation = %id, %member, woken, "woken");
        if !woken {
            self.end(id, Ending::NotAccepted);
        }
    }

    fn converse(&mut self, member: &MemberId, id: ConversationId) -> bool {
        let joined = self.order_to_converse(member, id);
        joined.zip(self.process(member)).is_some_and(|((order, stream), process)| {
            process.give(&order, &[stream.as_fd()]).is_ok()
        })
    }

    /// Lets those in who wait for machines that are awake, or can be woken.
    fn admit_visitors(&mut self) {
        if self.visitors.is_empty() {
            return;
        }
        let status = self.manager.status();
        let members = status.into_iter().flat_map(|pool| pool.members);
        let states: BTreeMap<_, _> = members.map(|one| (one.member, one.state)).collect();
        let visitors = std::mem::take(&mut self.visitors);
        for (member, waiting) in visitors {
            match states.get(&member) {
                // Whatever they did would be undone at once.
                Some(MemberState::Cleaning) => {
                    self.visitors.insert(member, waiting);
                    continue;
                }
                Some(MemberState::Assigned) if self.waking.contains_key(&member) => {
                    self.visitors.insert(member, waiting);
                    continue;
                }
                Some(MemberState::Free) if self.visited.insert(member.clone()) => {
                    if let Some(process) = self.process(&member) {
                        if let Err(reason) = self.shared.begin_files(&process, None) {
                            tracing::warn!(%member, reason, "not even nobody's files");
                        }
                        self.shared.begin_database(&process, None);
                    }
                    let _ = self.give(&member, &Order::Wake);
                }
                // There is nothing to wait for.
                _ => {}
            }
            for awake in waiting {
                let _ = awake.send(());
            }
        }
    }

    fn restore(&mut self, member: MemberId) {
        if let Some(why) = self.suspect.remove(&member) {
            return self.broken(member, why);
        }
        // It is on its way there already, and was not woken since.
        if self.restoring.contains_key(&member) {
            return;
        }
        self.end_sessions(&member);
        let wait_ms = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        let since = Instant::now();
        if !self.give(&member, &Order::Reset { wait_ms }) {
            return self.broken(member, "its worker cannot be reached".to_owned());
        }
        self.restoring.insert(member, since);
    }

    /// A machine cannot be put back: nobody may use it before it is made anew.
    fn broken(&mut self, member: MemberId, why: String) {
        tracing::error!(%member, why, "a machine cannot be put back");
        self.restoring.remove(&member);
        if let Some(id) = self.waking.remove(&member) {
            self.end(id, Ending::NotAccepted);
        }
        self.step(Event::RestoreFailed { member, why });
    }

    /// The machine is nobody's now: whoever has the conversation is told.
    fn revoke(&mut self, worn: &Worn) {
        self.waking.remove(&worn.member);
        self.end_sessions(&worn.member);
        if self.conversations.contains_key(&worn.conversation) {
            self.measures.ended(worn);
        }
        let Some(one) = self.forget(worn.conversation) else { return };
        self.shared.audit_use(worn, self.started);
        if !one.words.is_empty() {
            let (conversation, words) = (worn.conversation, one.words.trim());
            tracing::info!(%conversation, words, "the program said on standard error");
        }
        let _ = self.give(&worn.member, &Order::Abend { conversation: one.number });
        let _ = one.told.send(Told::Ended { how: worn.how, reason: one.reason });
    }

    fn hear_worker(&mut self, member: MemberId, report: Report) {
        match report {
            Report::Parked(done) => {
                tracing::debug!(%member, ?done, "as it was captured");
                self.note_put_back(&member, done);
                match self.waking.get(&member).copied() {
                    Some(id) => self.wake(&member, id),
                    None => self.step(Event::Restored(member)),
                }
            }
            Report::Broken { reason } => {
                self.broken(member, reason);
            }
            Report::Renewed { problem } => self.renewed(&member, problem),
            Report::ConversationAccepted { conversation } => {
                if let Some(id) = self.numbers.get(&conversation).copied() {
                    self.accepted(&member, id);
                }
            }
            Report::ConversationEnded { conversation, end, words, first_output_us } => {
                self.first_outputs.insert(member, first_output_us);
                let Some(id) = self.numbers.get(&conversation).copied() else { return };
                let Some(one) = self.conversations.get_mut(&id) else { return };
                let how = match end {
                    ProgramEnd::Exited { code: 0 } => Ending::Confirmed,
                    ProgramEnd::Failed { reason } if !one.accepted && one.starts => {
                        one.reason = Some(reason);
                        Ending::NotStarted
                    }
                    ProgramEnd::Failed { .. } if !one.accepted => Ending::NotAccepted,
                    _ => Ending::ProgramAbend,
                };
                one.words = words;
                self.end(id, how);
            }
            Report::MetadataQuestion { id, path } => {
                let (status, body) = self.answer(&member, &path);
                let _ = self.give(&member, &Order::MetadataReply { id, status, body });
            }
            _ => {}
        }
    }

    fn note_put_back(&mut self, member: &MemberId, done: PutBack) {
        // A machine just made is parked too: nobody ordered that.
        let Some(since) = self.restoring.remove(member) else { return };
        let times = self.put_back.get(member).map_or(0, |last| last.times);
        let this = MemberPutBack {
            bytes: (done.copied + done.cleared) * main_storage::PAGE_SIZE,
            micros: u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX),
            times: times + 1,
            first_output_us: self.first_outputs.remove(member).flatten(),
        };
        self.measures.put_back(member, this.micros);
        self.put_back.insert(member.clone(), this);
    }

    /// The machine differs from its like, or can not.
    fn renewed(&mut self, member: &MemberId, problem: Option<String>) {
        let of = |(_, one): &(&ConversationId, &mut Conversation)| {
            one.member.as_ref() == Some(member) && !one.renewed
        };
        let Some((id, one)) = self.conversations.iter_mut().find(of) else { return };
        let id = *id;
        match problem {
            None => {
                one.renewed = true;
                tracing::debug!(conversation = %id, %member, "renewed");
            }
            Some(problem) => {
                tracing::error!(%member, problem, "a machine could not be renewed");
                // Put back it would be no other: it is made anew.
                let why = format!("it could not be renewed: {problem}");
                self.suspect.insert(member.clone(), why);
                self.end(id, Ending::NotAccepted);
            }
        }
    }

    fn order_to_converse(
        &mut self,
        member: &MemberId,
        id: ConversationId,
    ) -> Option<(Order, UnixStream)> {
        let one = self.conversations.get_mut(&id)?;
        let spec = self.shared.pool_of(member)?;
        let program = spec.programs.iter().find(|program| program.tpn == one.tpn)?;
        one.starts = matches!(program.kind, ProgramKind::Run { .. });
        let program = match &program.kind {
            // The gateway's users are told so before.
            ProgramKind::Service(_) => None,
            ProgramKind::Run { run, .. } => {
                let variable = |name: &str, value: String| (name.to_owned(), value);
                let mut env = vec![
                    variable("BERTH_USER", one.user.to_string()),
                    variable("BERTH_CONVERSATION", id.to_string()),
                    variable("BERTH_TPN", one.tpn.to_string()),
                ];
                let parent = self.measures.parent(id);
                env.extend(parent.map(|parent| variable("TRACEPARENT", parent)));
                let database = self.shared.database_url(spec, &one.user);
                env.extend(database.map(|url| variable("BERTH_DATABASE", url)));
                let argv = run.iter().chain(&one.arguments).cloned().collect();
                Some(Program { argv, env, cwd: String::new() })
            }
        };
        let (conversation, tpn) = (one.number, one.tpn.to_string());
        Some((Order::Converse { conversation, tpn, program }, one.connection.take()?))
    }

    fn accepted(&mut self, member: &MemberId, id: ConversationId) {
        let longest = self.shared.pool_of(member).map(|spec: &PoolSpec| spec.conversation);
        if let Some(one) = self.conversations.get_mut(&id) {
            if !one.renewed {
                tracing::error!(%member, "a machine has accepted before it was renewed");
                self.suspect.insert(member.clone(), "its guest does not renew it".to_owned());
                return self.end(id, Ending::NotAccepted);
            }
            one.accepted = true;
            one.deadline = longest.map(|longest| Instant::now() + longest);
            let _ = one.told.send(Told::Accepted { member: member.to_string() });
            self.measures.accepted(id, member);
        }
        self.step(Event::Accepted(id));
    }
}
