//! The worker's end against a guest of the test's own, over a real channel.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};

use agent_protocol::{
    ExecRequest, FIRST_GUEST_STREAM, MAX_CONNECTIONS, MAX_METADATA_REQUESTS, ServiceRequest,
    Status, Tpn,
};
use io_processors::AgentChannel;
use io_processors::guest_driver::{BUFFERS, Driver, patience};

use super::*;
use crate::link::{ProgramEnd, ReadyWhen};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL_TRANSMIT: usize = 3;
/// Where what the worker says is put.
const HEARD: u64 = BUFFERS + 0x2_0000;

struct Guest {
    driver: Driver,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Guest {
    fn say(&mut self, stream: StreamId, message: &Message) {
        let mut frame = Vec::new();
        message.encode(stream, &mut frame).unwrap();
        self.send(TRANSMIT, &frame);
    }

    fn send(&mut self, queue: usize, bytes: &[u8]) {
        self.driver.put_bytes(BUFFERS, bytes);
        self.driver.submit(queue, &[(BUFFERS, bytes.len() as u32, false)]);
        self.driver.take_used(queue);
    }

    fn hear(&mut self) -> (StreamId, Message) {
        loop {
            let mut input = &self.unread[..];
            let heard = self.decoder.next(&mut input).unwrap();
            self.unread = input.to_vec();
            if let Some(message) = heard {
                return message;
            }
            self.driver.submit(RECEIVE, &[(HEARD, 0x1_0000, true)]);
            let (_, length) = self.driver.take_used(RECEIVE);
            self.unread.extend(self.driver.get_bytes(HEARD, length as usize));
        }
    }
}

/// A guest that serves commands, its worker's end, and what that tells a host.
fn serving() -> (Guest, Arc<Agent>, Receiver<Report>) {
    let (device, end) = AgentChannel::new();
    let driver = Driver::ready(device, u64::MAX);
    let mut guest = Guest { driver, decoder: Decoder::new(), unread: Vec::new() };
    let (told, reports) = channel();
    let ready = told.clone();
    let on_ready = move |guest: Option<Ready>| {
        let _ = ready
            .send(guest.map_or(Report::NotReady, |Ready { uptime_ns, kernel, .. }| {
                Report::Ready { uptime_ns, kernel }
            }));
    };
    let tell = move |report: &Report| told.send(report.clone()).is_ok();
    let agent = Agent::new(end, Box::new(on_ready), Box::new(tell));
    let running = Arc::clone(&agent);
    std::thread::spawn(move || running.run());
    // Port 0 is open: `struct virtio_console_control`.
    guest.send(CONTROL_TRANSMIT, &[0, 0, 0, 0, 6, 0, 1, 0]);
    guest.say(0, &Message::Ready(Ready { version: 2, uptime_ns: 5, kernel: "k".to_owned() }));
    assert_eq!(reports.recv().unwrap(), is_ready());
    (guest, agent, reports)
}

fn is_ready() -> Report {
    Report::Ready { uptime_ns: 5, kernel: "k".to_owned() }
}

/// The rest that the connection comes to: a report may be told a moment
/// before the message that it comes of is done with.
fn comes_to_rest(agent: &Agent) -> Rest {
    let deadline = patience();
    loop {
        if let Some(rest) = agent.at_rest() {
            return rest;
        }
        assert!(Instant::now() < deadline, "no rest");
        std::thread::yield_now();
    }
}

fn mail() -> Report {
    Report::ServiceReady { tpn: "MAIL".to_owned() }
}

#[test]
fn a_connection_at_rest_has_its_services_and_no_other_state() {
    let (mut guest, agent, reports) = serving();
    let before = comes_to_rest(&agent);
    let program = ExecRequest::new(["mail"]);
    agent.start_service("MAIL", program.clone(), ReadyWhen::Notify);
    let tpn = Tpn::new("MAIL").unwrap();
    let request = ServiceRequest { tpn: tpn.clone(), program };
    assert_eq!(guest.hear(), (1, Message::StartService(request)));
    assert_eq!(agent.at_rest(), None, "it is not ready");
    guest.say(1, &Message::ServiceReady);
    assert_eq!(reports.recv().unwrap(), mail());
    let rest = comes_to_rest(&agent);
    assert_ne!(rest, before);

    let (user, theirs) = UnixStream::pair().unwrap();
    agent.converse(8, "MAIL", None, theirs);
    let joined = agent_protocol::Conversation { tpn, program: None };
    assert_eq!(guest.hear(), (2, Message::Converse(joined)));
    assert_eq!(agent.at_rest(), None, "somebody converses");
    drop(user);
    assert_eq!(guest.hear(), (2, Message::StdinEnd));
    guest.say(2, &Message::Exited(Status::Code(0)));
    let (end, words) = (ProgramEnd::Exited { code: 0 }, String::new());
    let first_output_us = None;
    let ended = Report::ConversationEnded { conversation: 8, end, words, first_output_us };
    assert_eq!(reports.recv().unwrap(), ended);
    comes_to_rest(&agent);

    // The guest is put back to where it was before that conversation.
    agent.lost("it is put back");
    assert_eq!(reports.recv().unwrap(), Report::NotReady);
    assert!(matches!(reports.recv().unwrap(), Report::ServiceEnded { .. }));
    assert_eq!(agent.at_rest(), None);
    agent.resume_from(rest.clone());
    agent.resume();
    assert_eq!((reports.recv().unwrap(), reports.recv().unwrap()), (is_ready(), mail()));
    assert_eq!(agent.at_rest(), Some(rest));
    // It stands still: what it were told now would wait for the next user.
    let (user, theirs) = UnixStream::pair().unwrap();
    agent.exec(ExecRequest::new(["date"]), theirs);
    let mut said = Vec::new();
    (&user).read_to_end(&mut said).unwrap();
    assert!(String::from_utf8_lossy(&said).contains("being put back"), "{said:?}");
    agent.wake();
    let (_user, theirs) = UnixStream::pair().unwrap();
    agent.converse(9, "MAIL", None, theirs);
    assert!(matches!(guest.hear(), (2, Message::Converse(_))));
}

#[test]
fn a_user_who_reads_by_fits_and_starts_has_all_that_was_said_in_order() {
    const PIECE: u32 = 4096;
    let (mut guest, agent, reports) = serving();
    let (mut user, theirs) = UnixStream::pair().unwrap();
    agent.converse(8, "MAIL", None, theirs);
    assert!(matches!(guest.hear(), (1, Message::Converse(_))));
    let reader = std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 150_000]);
        loop {
            // Until the socket is full and pieces wait for the thread that writes them.
            std::thread::sleep(Duration::from_millis(if all.len() % 3 == 0 { 20 } else { 0 }));
            match user.read(&mut buffer).unwrap() {
                0 => return all,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    });
    let (mut credit, mut said) = (agent_protocol::INITIAL_CREDIT, Vec::new());
    for number in 0..800_u32 {
        while credit < PIECE {
            let (1, Message::Credit(more)) = guest.hear() else { panic!("no credit") };
            credit += more;
        }
        let bytes = number.to_be_bytes().repeat(PIECE as usize / 4);
        said.extend_from_slice(&bytes);
        guest.say(1, &Message::Stdout(bytes));
        credit -= PIECE;
    }
    guest.say(1, &Message::Exited(Status::Code(0)));
    assert!(reader.join().unwrap() == said);
    assert!(matches!(reports.recv().unwrap(), Report::ConversationEnded { conversation: 8, .. }));
}

#[test]
fn a_stream_that_was_closed_is_awaited() {
    let (mut guest, agent, reports) = serving();
    let (_user, theirs) = UnixStream::pair().unwrap();
    agent.converse(3, "MAIL", None, theirs);
    assert!(matches!(guest.hear(), (1, Message::Converse(_))));
    agent.abend(3);
    assert!(matches!(reports.recv().unwrap(), Report::ConversationEnded { conversation: 3, .. }));
    assert_eq!(guest.hear(), (1, Message::Close));
    assert_eq!(agent.at_rest(), None);
    guest.say(1, &Message::Exited(Status::Signal(9)));
    comes_to_rest(&agent);
}

#[test]
fn a_guest_that_asks_too_much_is_told_so_without_the_host() {
    let (mut guest, agent, reports) = serving();
    let most = MAX_METADATA_REQUESTS as u32;
    for id in 0..=most {
        guest.say(0, &Message::MetadataRequest { id, path: "/v1/identity".to_owned() });
    }
    for id in 0..most {
        let path = "/v1/identity".to_owned();
        assert_eq!(reports.recv().unwrap(), Report::MetadataQuestion { id, path });
    }
    let told = guest.hear();
    assert!(matches!(told, (0, Message::MetadataReply { id, status: 429, .. }) if id == most));
    assert_eq!(agent.at_rest(), None);
    agent.reply(0, 200, b"{}".to_vec());
    let answer = Message::MetadataReply { id: 0, status: 200, body: b"{}".to_vec() };
    assert_eq!(guest.hear(), (0, answer));
    // Nobody asked this, or not any more.
    agent.reply(0, 200, b"{}".to_vec());
    agent.reply(1, 9999, b"{}".to_vec());
    assert!(matches!(guest.hear(), (0, Message::MetadataReply { id: 1, status: 500, .. })));
    agent.host_gone();
    for _ in 2..most {
        assert!(matches!(guest.hear(), (0, Message::MetadataReply { status: 503, .. })));
    }
    comes_to_rest(&agent);
}

#[test]
fn a_guest_that_was_not_asked_says_nothing_of_a_renewal() {
    let (mut guest, agent, reports) = serving();
    guest.say(0, &Message::Renewed);
    // It is heard, and nobody is told.
    comes_to_rest(&agent);
    let (hostname, ids) = ("serve-01".to_owned(), [1; 16]);
    let renewal = crate::link::Renewal {
        entropy: vec![7; 32],
        wall_clock_ns: 1,
        hostname,
        machine_id: ids,
        boot_id: ids,
        generation: 1,
    };
    agent.renew(renewal.clone());
    assert!(matches!(guest.hear(), (0, Message::Renew(_))));
    agent.renew(renewal);
    let problem = |text: &str| Report::Renewed { problem: Some(text.to_owned()) };
    assert_eq!(reports.recv().unwrap(), problem("the guest is being renewed already"));
    guest.say(0, &Message::RenewFailed("no clock".to_owned()));
    assert_eq!(reports.recv().unwrap(), problem("no clock"));
    comes_to_rest(&agent);
}

/// A database manager without a server, and a machine's session that is nobody's.
fn database_of_nobody() -> (tokio::runtime::Runtime, database_manager::Service, OwnedFd) {
    let spec = database_manager::ServerSpec {
        address: "/nowhere".parse().unwrap(),
        authority: None,
        credentials: None,
    };
    let table = std::path::Path::new("/nowhere/logins.json");
    let broker = Arc::new(database_manager::Broker::open(spec, table).unwrap());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let service = database_manager::Service::new(broker, runtime.handle().clone());
    let (ours, theirs) = database_manager::session_pair().unwrap();
    service.begin("m", None, ours).unwrap();
    (runtime, service, theirs)
}

#[test]
fn a_program_that_connects_is_joined_to_the_database_manager() {
    let (mut guest, agent, _reports) = serving();
    let (_runtime, service, session) = database_of_nobody();
    agent.use_database(Some(session));
    guest.say(FIRST_GUEST_STREAM, &Message::Connect);
    guest.say(FIRST_GUEST_STREAM, &Message::Stdout(vec![0, 0, 0, 9, 0, 3, 0, 0, 0]));
    let (stream, Message::Stdin(said)) = guest.hear() else { panic!("no answer") };
    assert_eq!(stream, FIRST_GUEST_STREAM);
    assert!(String::from_utf8_lossy(&said).contains("nobody's"), "{said:?}");
    assert_eq!(guest.hear(), (FIRST_GUEST_STREAM, Message::StdinEnd));
    assert_eq!(agent.at_rest(), None, "the program has not closed");
    guest.say(FIRST_GUEST_STREAM, &Message::Exited(Status::Code(0)));
    comes_to_rest(&agent);

    // When the session is over there is nobody to connect to.
    service.end("m").unwrap();
    guest.say(FIRST_GUEST_STREAM + 1, &Message::Connect);
    assert_eq!(guest.hear(), (FIRST_GUEST_STREAM + 1, Message::Close));
    guest.say(FIRST_GUEST_STREAM + 1, &Message::Exited(Status::Code(0)));
    comes_to_rest(&agent);
}

#[test]
fn a_guest_that_connects_out_of_order_gets_no_more_than_it_may() {
    let (mut guest, agent, _reports) = serving();
    let streams = || (0..MAX_CONNECTIONS as u32).map(|number| FIRST_GUEST_STREAM + number);
    // There is no database; and nobody is told of those beyond the bound, or twice.
    for stream in streams().chain(streams()).chain([FIRST_GUEST_STREAM + 1000]) {
        guest.say(stream, &Message::Connect);
    }
    let mut closed: Vec<_> = streams().map(|_| guest.hear()).collect();
    closed.sort_by_key(|(stream, _)| *stream);
    let expected: Vec<_> = streams().map(|stream| (stream, Message::Close)).collect();
    assert_eq!(closed, expected);
    assert_eq!(agent.at_rest(), None);
    for stream in streams() {
        guest.say(stream, &Message::Exited(Status::Code(0)));
    }
    comes_to_rest(&agent);
}
