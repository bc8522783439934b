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

/// Claims and builds that have not come to their end.
pub(super) struct Measures {
    station: Arc<Station>,
    claimed: BTreeMap<ConversationId, (Instant, u64)>,
    building: BTreeMap<MemberId, Instant>,
}

impl Measures {
    pub(super) fn new(station: Arc<Station>) -> Self {
        Self { station, claimed: BTreeMap::new(), building: BTreeMap::new() }
    }

    fn took(&self, what: Quantity, of: &MemberId, since: Instant) {
        self.station.measured(what, &of.to_string(), since.elapsed().as_secs_f64());
    }

    pub(super) fn claimed(&mut self, id: ConversationId) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.claimed.insert(id, (Instant::now(), now));
    }

    /// When a claim was made, in milliseconds since 1970.
    pub(super) fn since(&self, id: ConversationId) -> u64 {
        self.claimed.get(&id).map_or(0, |(_, at)| *at)
    }

    pub(super) fn assigned(&self, id: ConversationId, member: &MemberId) {
        if let Some((since, _)) = self.claimed.get(&id) {
            self.took(Quantity::Wait, member, *since);
        }
    }

    pub(super) fn accepted(&self, id: ConversationId, member: &MemberId) {
        if let Some((since, _)) = self.claimed.get(&id) {
            self.took(Quantity::Claim, member, *since);
            self.station.metrics.claim("accepted");
        }
    }

    pub(super) fn refused(&self, why: Refusal) {
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
