//! How long users and machines take, for the operator's station.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use operator_api::{Quantity, Station};
use service_pool::{ConversationId, Ending, MemberId, Refusal, Worn};
use tokio::io::{AsyncRead, ReadBuf};

use super::driver::Conversation;
use crate::daemon::Shared;
use crate::daemon::telemetry::Trace;

type Attribute = (&'static str, String);

/// Claims and builds that have not come to their end.
pub(super) struct Measures {
    shared: Arc<Shared>,
    station: Arc<Station>,
    claimed: BTreeMap<ConversationId, Claimed>,
    building: BTreeMap<MemberId, Instant>,
}

/// When a claim came as far as it is.
struct Claimed {
    since: Instant,
    at: SystemTime,
    assigned: Option<SystemTime>,
    accepted: Option<SystemTime>,
    trace: Option<Trace>,
}

impl Measures {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let station = Arc::clone(shared.station());
        Self { shared, station, claimed: BTreeMap::new(), building: BTreeMap::new() }
    }

    fn took(&self, what: Quantity, of: &MemberId, since: Instant) {
        self.station.measured(what, &of.to_string(), since.elapsed().as_secs_f64());
    }

    pub(super) fn claimed(&mut self, id: ConversationId) {
        let (since, at) = (Instant::now(), SystemTime::now());
        let (assigned, accepted, trace) = (None, None, self.shared.telemetry.trace());
        self.claimed.insert(id, Claimed { since, at, assigned, accepted, trace });
    }

    /// When a claim was made, in milliseconds since 1970.
    pub(super) fn since(&self, id: ConversationId) -> u64 {
        let at = self.claimed.get(&id).map_or(UNIX_EPOCH, |claimed| claimed.at);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// What a program gets so that its own traces belong to this one.
    pub(super) fn parent(&self, id: ConversationId) -> Option<String> {
        Some(self.claimed.get(&id)?.trace?.parent())
    }

    pub(super) fn assigned(&mut self, id: ConversationId, member: &MemberId) {
        if let Some(claimed) = self.claimed.get_mut(&id) {
            claimed.assigned = Some(SystemTime::now());
            let since = claimed.since;
            self.took(Quantity::Wait, member, since);
        }
    }

    pub(super) fn accepted(&mut self, id: ConversationId, member: &MemberId) {
        if let Some(claimed) = self.claimed.get_mut(&id) {
            claimed.accepted = Some(SystemTime::now());
            let since = claimed.since;
            self.took(Quantity::Claim, member, since);
            self.station.metrics.claim("accepted");
        }
    }

    /// The spans of a conversation: the whole of it, and its parts.
    fn trace(&self, id: ConversationId, who: Vec<Attribute>, problem: Option<String>) {
        let Some(claimed) = self.claimed.get(&id) else { return };
        let Some(ids) = claimed.trace else { return };
        let (telemetry, now) = (&self.shared.telemetry, SystemTime::now());
        let part = |name, from: Option<SystemTime>, to: Option<SystemTime>| {
            if let Some(from) = from {
                telemetry.part(ids, name, (from, to.unwrap_or(now)), who.clone());
            }
        };
        part("wait for a machine", Some(claimed.at), claimed.assigned);
        part("machine accepts", claimed.assigned, claimed.accepted);
        part("machine serves", claimed.accepted, None);
        telemetry.whole(ids, "conversation", claimed.at, who, problem);
    }

    pub(super) fn refused(&self, id: ConversationId, one: &Conversation, why: Refusal) {
        let who = vec![
            ("berth.user", one.user.to_string()),
            ("berth.tpn", one.tpn.to_string()),
            ("berth.conversation", id.to_string()),
        ];
        self.trace(id, who, Some(why.to_string()));
        self.station.metrics.claim(match why {
            Refusal::UnknownTpn => "unknown_tpn",
            Refusal::NotAuthorised => "not_authorised",
            Refusal::NotNow => "not_now",
            Refusal::Closed => "closed",
            Refusal::WaitRanOut => "wait_ran_out",
            Refusal::QueueFull => "queue_full",
        });
    }

    pub(super) fn ended(&self, worn: &Worn) {
        let who = vec![
            ("berth.user", worn.user.to_string()),
            ("berth.tpn", worn.tpn.to_string()),
            ("berth.conversation", worn.conversation.to_string()),
            ("berth.machine", worn.member.to_string()),
        ];
        let problem = (worn.how != Ending::Confirmed).then(|| format!("{:?}", worn.how));
        self.trace(worn.conversation, who, problem);
        self.station.metrics.conversation(match worn.how {
            Ending::Confirmed => "confirmed",
            Ending::NotAccepted => "not_accepted",
            Ending::NotStarted => "not_started",
            Ending::ProgramAbend => "program_abend",
            Ending::ClientAbend => "client_abend",
            Ending::LostConnection => "lost_connection",
            Ending::Deadline => "deadline",
            Ending::MachineDied => "machine_died",
        });
    }

    pub(super) fn forget(&mut self, id: ConversationId) {
        self.claimed.remove(&id);
    }

    pub(super) fn put_back(&self, member: &MemberId, micros: u64) {
        let seconds = micros as f64 / 1e6;
        self.station.measured(Quantity::Reset, &member.to_string(), seconds);
    }

    pub(super) fn building(&mut self, member: &MemberId) {
        self.building.insert(member.clone(), Instant::now());
    }

    pub(super) fn built(&mut self, member: &MemberId) {
        if let Some(since) = self.building.remove(member) {
            self.took(Quantity::Refill, member, since);
        }
    }
}

/// A program's output that tells when its first byte came.
pub(super) struct FirstByte<R> {
    output: R,
    expected: Option<(Instant, String, Arc<Station>)>,
}

impl<R> FirstByte<R> {
    /// The output of a program in `member` that was claimed at `since`.
    pub(super) fn new(output: R, since: Instant, member: String, station: Arc<Station>) -> Self {
        Self { output, expected: Some((since, member, station)) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for FirstByte<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.output).poll_read(context, buffer);
        if buffer.filled().len() > before {
            if let Some((since, member, station)) = self.expected.take() {
                let seconds = since.elapsed().as_secs_f64();
                station.measured(Quantity::FirstByte, &member, seconds);
            }
        }
        polled
    }
}
