//! What makes the guest a machine of a pool: services, conversations, its
//! renewal, questions of its programs, and how its connection can be captured.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::{
    ExecRequest, MAX_METADATA_BODY, MAX_METADATA_REQUESTS, Message, Ready, ServiceRequest,
    StreamId, Tpn,
};
use io_processors::ChannelState;
use serde::{Deserialize, Serialize};

use super::conversation::Conversation;
use super::service::Service;
use super::{Agent, Peer, Stream, lock, sound};
use crate::link::{ProgramEnd, ReadyWhen, Renewal, Report};
use agent_protocol::SESSION_STREAM;

/// All that a connection at rest is beside "ready".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rest {
    ready: Greeting,
    /// Number of the last stream that was used.
    last: StreamId,
    /// Services that are ready, by name, with their streams.
    services: Vec<(String, StreamId)>,
}

/// What the guest said when it began to serve commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    version: u32,
    uptime_ns: u64,
    kernel: String,
}

impl From<Ready> for Greeting {
    fn from(Ready { version, uptime_ns, kernel }: Ready) -> Self {
        Self { version, uptime_ns, kernel }
    }
}

impl From<Greeting> for Ready {
    fn from(Greeting { version, uptime_ns, kernel }: Greeting) -> Self {
        Self { version, uptime_ns, kernel }
    }
}

/// Between two looks whether the channel is still there.
const LOOK: Duration = Duration::from_millis(100);

const NO_TPN: &str = "this is no transaction program's name";

impl Agent {
    /// From now on, a guest that is put back to a captured state, and so says
    /// nothing first, is taken to be at `rest`.
    pub(crate) fn resume_from(&self, rest: Rest) {
        let mut state = lock(&self.state);
        (state.rest, state.awaiting, state.parked) = (Some(rest), true, true);
    }

    /// The guest is about to go on: it may be talked to.
    pub(crate) fn wake(&self) {
        let mut state = lock(&self.state);
        (state.parked, state.woken) = (false, Some(Instant::now()));
    }

    /// Waits until the guest was taken to be so once more; false if it has not
    /// been at `deadline`, or never will be.
    pub(crate) fn await_resumed(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        while state.awaiting {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.channel.state() == ChannelState::Gone {
                return false;
            }
            let waited = self.resumed.wait_timeout(state, left.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ready.is_some()
    }

    /// The guest was put back: its connection goes on from the rest it had.
    /// Says again what the guest said before that.
    pub(super) fn resume(&self) {
        let rest = {
            let mut state = lock(&self.state);
            let Some(rest) = state.rest.clone() else {
                tracing::error!("a guest was put back whose connection is not known");
                return;
            };
            (state.ready, state.last) = (Some(rest.ready.clone()), rest.last);
            // A name that is none was none of a worker's.
            let services = rest.services.iter().filter_map(|(tpn, stream)| {
                Some((*stream, Peer::Service(Arc::new(Service::ready(Tpn::new(tpn)?)))))
            });
            state.peers = services.collect();
            rest
        };
        (self.on_ready)(Some(rest.ready.into()));
        for (tpn, _) in rest.services {
            self.report(Some(Report::ServiceReady { tpn }));
        }
        lock(&self.state).awaiting = false;
        self.resumed.notify_all();
    }

    /// What the connection is if it is at rest: the guest serves commands, no
    /// stream is open but services that are ready, and nothing is on its way
    /// or awaited. The guest must not run meanwhile, or the answer is old.
    pub(crate) fn at_rest(&self) -> Option<Rest> {
        let state = lock(&self.state);
        // A frame may be half written.
        let _writing = self.writing.try_lock().ok()?;
        let read = self.channel.at_rest()?;
        let awaited = state.renewing || !state.questions.is_empty() || !state.closing.is_empty();
        if state.heard != read || state.held > 0 || awaited {
            return None;
        }
        let greeting = state.ready.clone()?;
        let ready = |(stream, peer): (&StreamId, &Peer)| match peer {
            Peer::Service(service) if service.is_ready() => {
                Some((service.tpn.to_string(), *stream))
            }
            _ => None,
        };
        let mut services: Vec<_> = state.peers.iter().map(ready).collect::<Option<_>>()?;
        services.sort();
        Some(Rest { ready: greeting, last: state.last, services })
    }

    /// Starts a transaction program before anybody converses with it.
    pub(crate) fn start_service(&self, tpn: &str, program: ExecRequest, when: ReadyWhen) {
        let refused = |why: &str| Report::ServiceEnded {
            tpn: tpn.to_owned(),
            end: ProgramEnd::Failed { reason: why.to_owned() },
            words: String::new(),
        };
        let Some(name) = Tpn::new(tpn) else { return self.report(Some(refused(NO_TPN))) };
        let service = Peer::Service(Arc::new(Service::new(name.clone(), when)));
        let stream = match sound(&program).and_then(|()| self.admit(service)) {
            Ok(stream) => stream,
            Err(why) => return self.report(Some(refused(why))),
        };
        let said = match when {
            ReadyWhen::Notify => {
                let request = ServiceRequest { tpn: name, program };
                self.say(stream, &Message::StartService(request))
            }
            ReadyWhen::Exit => {
                self.say(stream, &Message::Exec(program)) && self.say(stream, &Message::StdinEnd)
            }
        };
        let peer = if said { None } else { self.forget(stream) };
        self.report(peer.and_then(|peer| peer.fail("it could not be sent to the guest")));
    }

    /// Joins the user at `client` to a transaction program.
    pub(crate) fn converse(
        self: &Arc<Self>,
        id: u64,
        tpn: &str,
        program: Option<ExecRequest>,
        client: UnixStream,
    ) {
        if let Err(reason) = self.begin(id, tpn, program, client) {
            let (end, words) = (ProgramEnd::Failed { reason }, String::new());
            let first_output_us = None;
            let conversation = id;
            self.report(Some(Report::ConversationEnded {
                conversation,
                end,
                words,
                first_output_us,
            }));
        }
    }

    fn begin(
        self: &Arc<Self>,
        id: u64,
        tpn: &str,
        program: Option<ExecRequest>,
        client: UnixStream,
    ) -> Result<(), String> {
        let tpn = Tpn::new(tpn).ok_or(NO_TPN)?;
        program.as_ref().map_or(Ok(()), sound)?;
        let request = Message::Converse(agent_protocol::Conversation { tpn, program });
        let fits = request.encode(SESSION_STREAM, &mut Vec::new());
        fits.map_err(|_| "command and variables are longer than 64 KiB")?;
        let woken = lock(&self.state).woken;
        let conversation = Conversation::new(id, client, woken)
            .map_err(|error| format!("the user's connection cannot be used: {error}"))?;
        let conversation = Arc::new(conversation);
        let stream = self.admit(Peer::Conversation(Arc::clone(&conversation)))?;
        self.talk(stream, &conversation, &request).map_err(|error| {
            tracing::warn!(%error, "no thread for a conversation");
            self.give_up(stream);
            super::NO_THREAD.to_owned()
        })
    }

    /// Ends a conversation by force, if it is not over.
    pub(crate) fn abend(&self, id: u64) {
        let state = lock(&self.state);
        let session = state.session;
        let found = state.peers.iter().find_map(|(stream, peer)| match peer {
            Peer::Conversation(conversation) if conversation.id == Some(id) => {
                Some((*stream, Arc::clone(conversation)))
            }
            _ => None,
        });
        let found = found.map(|(id, conversation)| (Stream { session, id }, conversation));
        drop(state);
        if let Some((stream, conversation)) = found {
            conversation.cut_off("it was ended by force");
            self.give_up(stream);
        }
    }

    /// Makes the guest differ from the one whose state it was made from.
    pub(crate) fn renew(&self, renewal: Renewal) {
        let Renewal { entropy, wall_clock_ns, hostname, machine_id, boot_id, generation } = renewal;
        let renewal = agent_protocol::Renewal {
            entropy,
            wall_clock_ns,
            hostname,
            machine_id,
            boot_id,
            generation,
        };
        let begun = {
            let mut state = lock(&self.state);
            if !renewal.is_sound() {
                Err("the host's renewal is out of its ranges")
            } else if state.ready.is_none() {
                Err("the guest's agent does not serve commands yet; try again later")
            } else if std::mem::replace(&mut state.renewing, true) {
                Err("the guest is being renewed already")
            } else {
                Ok(())
            }
        };
        match begun {
            Err(why) => {
                self.report(Some(Report::Renewed { problem: Some(why.to_owned()) }));
            }
            Ok(()) if self.say_itself(&Message::Renew(renewal)) => {}
            Ok(()) => self.renewed(Some("it could not be sent to the guest".to_owned())),
        }
    }

    /// The guest is renewed, or says what is missing.
    pub(super) fn renewed(&self, problem: Option<String>) {
        // A guest that was not asked has nothing to say.
        if std::mem::take(&mut lock(&self.state).renewing) {
            let problem = problem.map(|text| text.chars().take(1024).collect());
            self.report(Some(Report::Renewed { problem }));
        }
    }

    /// A program in the guest asks who the machine is. Only the host knows.
    pub(super) fn question(&self, id: u32, path: String) {
        let room = {
            let mut state = lock(&self.state);
            let room = state.questions.len() < MAX_METADATA_REQUESTS;
            if room && !state.questions.insert(id) {
                tracing::warn!(id, "the guest's agent asks a question twice");
                return;
            }
            room
        };
        if !room {
            self.say_itself(&refusal(id, 429));
        } else if !(self.tell)(&Report::MetadataQuestion { id, path }) {
            self.reply_with(id, refusal(id, 503));
        }
    }

    /// Answers a question, if it is one.
    pub(crate) fn reply(&self, id: u32, status: u16, body: Vec<u8>) {
        let fits = (100..=599).contains(&status) && body.len() <= MAX_METADATA_BODY;
        let reply = if fits {
            Message::MetadataReply { id, status, body }
        } else {
            tracing::warn!(status, "the host's answer to a question is out of bounds");
            refusal(id, 500)
        };
        self.reply_with(id, reply);
    }

    fn reply_with(&self, id: u32, reply: Message) {
        let asked = lock(&self.state).questions.remove(&id);
        if asked {
            self.say_itself(&reply);
        }
    }

    /// There is no host: nobody knows who the machine is.
    pub(crate) fn host_gone(&self) {
        let questions: Vec<u32> = lock(&self.state).questions.iter().copied().collect();
        for id in questions {
            self.reply_with(id, refusal(id, 503));
        }
    }
}

/// An answer that is none.
fn refusal(id: u32, status: u16) -> Message {
    let body = format!("{{\"error\":\"the host does not answer ({status})\"}}\n").into_bytes();
    Message::MetadataReply { id, status, body }
}
