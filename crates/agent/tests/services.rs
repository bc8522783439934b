//! What makes a guest a machine of a pool, as its host sees it.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use agent_protocol::{
    Conversation, ExecRequest, FIRST_GUEST_STREAM, MAX_CONNECTIONS, MAX_METADATA_REQUESTS, Message,
    Renewal, ServiceRequest, Status, StreamId, Tpn,
};
use support::{Agent, exited};

/// Not a test: the transaction program of the tests below, which is this file's
/// program run again. It answers what it is sent, at its end, with the number
/// of the conversation in front, and closes at once on what begins with `!`.
#[test]
#[ignore = "run by the other tests"]
#[expect(unsafe_code, reason = "descriptor 3 is passed by its number")]
fn service_program() {
    let variable = |name| std::env::var(name).unwrap();
    assert_eq!(variable("LISTEN_FDS"), "1");
    assert_eq!(variable("LISTEN_PID"), std::process::id().to_string());
    assert_eq!(variable("LISTEN_FDNAMES"), "ECHO");
    // SAFETY: descriptor 3 was passed for this and has no other owner.
    let listener = unsafe { UnixListener::from_raw_fd(3) };
    let address = listener.local_addr().unwrap();
    assert_eq!(address.as_pathname().unwrap().to_str().unwrap(), variable("BERTH_SOCKET"));
    assert_eq!(std::io::stdin().read(&mut [0]).unwrap(), 0);
    let notify = UnixDatagram::unbound().unwrap();
    let notify = |text: &[u8]| notify.send_to(text, variable("NOTIFY_SOCKET")).unwrap();
    notify(b"STATUS=nearly there\nNOTREADY=1");
    notify(b"STATUS=there\nREADY=1");
    for (number, conversation) in listener.incoming().enumerate() {
        let mut conversation = conversation.unwrap();
        let mut first = [0];
        conversation.read_exact(&mut first).unwrap();
        if first == *b"!" {
            continue;
        }
        let mut said = String::from(char::from(first[0]));
        conversation.read_to_string(&mut said).unwrap();
        match said.as_str() {
            "die" => std::process::exit(3),
            "shrug" => {}
            said => {
                // Whoever said it may be gone.
                let _ = write!(conversation, "{number}:{said}");
            }
        }
    }
}

fn echo() -> Tpn {
    Tpn::new("ECHO").unwrap()
}

fn start_service(agent: &mut Agent, stream: StreamId) {
    let this = std::env::current_exe().unwrap();
    let argv = [this.to_str().unwrap(), "service_program", "--exact", "--ignored", "--nocapture"];
    let program = ExecRequest::new(argv);
    agent.say(stream, &Message::StartService(ServiceRequest { tpn: echo(), program }));
    assert_eq!(next_word(agent), (stream, Message::ServiceReady));
}

/// The next message that is no output: the service writes some at its start.
fn next_word(agent: &mut Agent) -> (StreamId, Message) {
    loop {
        match agent.next() {
            (_, Message::Stdout(_) | Message::Stderr(_)) => {}
            word => return word,
        }
    }
}

fn converse(agent: &mut Agent, stream: StreamId, program: Option<ExecRequest>) {
    agent.say(stream, &Message::Converse(Conversation { tpn: echo(), program }));
    assert_eq!(next_word(agent), (stream, Message::Accepted));
}

/// A whole conversation in which this is said; the answer and the last word.
fn ask(agent: &mut Agent, stream: StreamId, said: &str) -> (String, Message) {
    converse(agent, stream, None);
    agent.say(stream, &Message::Stdin(said.as_bytes().to_vec()));
    agent.say(stream, &Message::StdinEnd);
    let (out, err, last) = agent.finish(stream);
    assert_eq!(err, b"");
    (String::from_utf8(out).unwrap(), last)
}

#[test]
fn a_service_takes_one_conversation_after_another() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    assert_eq!(ask(&mut agent, 2, "a"), ("0:a".to_owned(), exited(0)));
    assert_eq!(ask(&mut agent, 3, "shrug"), (String::new(), exited(0)));
    let long = "x".repeat(60_000);
    assert_eq!(ask(&mut agent, 4, &long), (format!("2:{long}"), exited(0)));
}

#[test]
fn a_conversation_of_a_service_that_dies_ends_with_its_status() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    converse(&mut agent, 2, None);
    agent.say(2, &Message::Stdin(b"die".to_vec()));
    agent.say(2, &Message::StdinEnd);
    let mut ended = [next_word(&mut agent), next_word(&mut agent)];
    ended.sort_by_key(|(stream, _)| *stream);
    assert_eq!(ended, [(1, exited(3)), (2, exited(3))]);
    agent.say(3, &Message::Converse(Conversation { tpn: echo(), program: None }));
    let why = "no service of ECHO runs in the guest".to_owned();
    assert_eq!(next_word(&mut agent), (3, Message::Failed(why)));
    // It can be started again.
    start_service(&mut agent, 4);
    assert_eq!(ask(&mut agent, 5, "b"), ("0:b".to_owned(), exited(0)));
}

#[test]
fn a_conversation_that_is_closed_leaves_its_service_alive() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    converse(&mut agent, 2, None);
    agent.say(2, &Message::Stdin(b"unfinished".to_vec()));
    agent.say(2, &Message::Close);
    assert_eq!(agent.finish(2).2, Message::Exited(Status::Signal(9)));
    let (answer, last) = ask(&mut agent, 3, "c");
    assert_eq!((answer.ends_with(":c"), last), (true, exited(0)));
}

#[test]
fn what_a_service_did_not_read_does_not_seem_taken() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    let (answer, last) = ask(&mut agent, 2, "!more");
    assert!(matches!(last, Message::Failed(why) if why.contains("before it had read all")));
    assert_eq!(answer, "");
    assert_eq!(ask(&mut agent, 3, "d"), ("1:d".to_owned(), exited(0)));
}

#[test]
fn a_service_that_is_closed_is_killed_with_its_conversations() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    converse(&mut agent, 2, None);
    agent.say(1, &Message::Close);
    let killed = Message::Exited(Status::Signal(9));
    let mut ended = [next_word(&mut agent), next_word(&mut agent)];
    ended.sort_by_key(|(stream, _)| *stream);
    assert_eq!(ended, [(1, killed.clone()), (2, killed)]);
}

#[test]
fn one_service_at_a_time_has_a_name() {
    let mut agent = Agent::start();
    start_service(&mut agent, 1);
    let program = ExecRequest::new(["true"]);
    agent.say(2, &Message::StartService(ServiceRequest { tpn: echo(), program }));
    assert_eq!(next_word(&mut agent), (2, Message::Failed("ECHO is started already".to_owned())));
}

#[test]
fn a_service_that_is_no_program_says_so_and_ends() {
    let mut agent = Agent::start();
    let program = ExecRequest::new(["no-such-program"]);
    agent.say(1, &Message::StartService(ServiceRequest { tpn: echo(), program }));
    let told = b"no-such-program: not found in the guest\n".to_vec();
    assert_eq!(agent.finish(1), (vec![], told, exited(127)));
}

#[test]
fn a_program_is_started_for_its_conversation() {
    let mut agent = Agent::start();
    let program = ExecRequest {
        env: vec![(b"BERTH_USER".to_vec(), b"anna".to_vec())],
        ..ExecRequest::new(["sh", "-c", "read word; echo $BERTH_USER:$word; echo e >&2; exit 4"])
    };
    converse(&mut agent, 1, Some(program));
    agent.say(1, &Message::Stdin(b"hello\n".to_vec()));
    assert_eq!(agent.finish(1), (b"anna:hello\n".to_vec(), b"e\n".to_vec(), exited(4)));
    let program = Some(ExecRequest::new(["no-such-program"]));
    agent.say(2, &Message::Converse(Conversation { tpn: echo(), program }));
    assert!(matches!(agent.next(), (2, Message::Failed(_))));
}

#[test]
fn a_conversations_program_is_killed_with_its_whole_group() {
    let mut agent = Agent::start();
    let script = "trap '' TERM; sleep 1000 | cat; echo not reached";
    converse(&mut agent, 1, Some(ExecRequest::new(["sh", "-c", script])));
    agent.say(1, &Message::Close);
    assert_eq!(agent.finish(1), (vec![], vec![], Message::Exited(Status::Signal(9))));
}

fn asking(agent: &Agent, request: &str) -> UnixStream {
    let mut program = UnixStream::connect(agent.directory.join("metadata.sock")).unwrap();
    program.write_all(request.as_bytes()).unwrap();
    program
}

fn answer(mut program: UnixStream) -> String {
    let mut answer = String::new();
    program.read_to_string(&mut answer).unwrap();
    answer
}

fn get(agent: &Agent, path: &str) -> UnixStream {
    asking(agent, &format!("GET {path} HTTP/1.1\r\nHost: berth\r\n\r\n"))
}

/// An agent whose programs can ask.
fn of_a_pool() -> Agent {
    let mut agent = Agent::start();
    converse(&mut agent, 1, Some(ExecRequest::new(["true"])));
    assert_eq!(agent.finish(1).2, exited(0));
    agent
}

#[test]
fn what_a_program_asks_is_answered_by_the_host() {
    let mut agent = of_a_pool();
    let program = get(&agent, "/v1/token?audience=bank");
    let (0, Message::MetadataRequest { id, path }) = agent.next() else { panic!() };
    assert_eq!(path, "/v1/token?audience=bank");
    // Of another question, or one that nobody asked.
    agent.say(0, &Message::MetadataReply { id: id + 1, status: 200, body: b"no".to_vec() });
    let body = b"{\"token\":\"t\"}".to_vec();
    agent.say(0, &Message::MetadataReply { id, status: 200, body: body.clone() });
    agent.say(0, &Message::MetadataReply { id, status: 404, body });
    let answer = answer(program);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"token\":\"t\"}"), "{answer}");
}

#[test]
fn nonsense_is_refused_without_the_host() {
    let mut agent = of_a_pool();
    let nonsense = asking(&agent, "POST /v1/token HTTP/1.1\r\n\r\n");
    assert!(answer(nonsense).starts_with("HTTP/1.1 405 "));
    let endless = asking(&agent, &"x".repeat(4096));
    assert!(answer(endless).starts_with("HTTP/1.1 431 "));
    drop(asking(&agent, "GET /v1/ide"));
    agent.say(0, &Message::Ping(5));
    assert_eq!(agent.next(), (0, Message::Pong(5)));
}

#[test]
fn programs_that_ask_too_much_wait_and_hold_up_nobody() {
    let mut agent = of_a_pool();
    let most = MAX_METADATA_REQUESTS;
    let programs: Vec<_> = (0..=most).map(|number| get(&agent, &format!("/{number}"))).collect();
    let mut heard = Vec::new();
    for _ in 0..most {
        let (0, Message::MetadataRequest { id, path }) = agent.next() else { panic!() };
        heard.push((id, path));
    }
    // Nothing of the last one may come before there is room for it.
    agent.say(0, &Message::Ping(6));
    assert_eq!(agent.next(), (0, Message::Pong(6)));
    for (id, path) in heard {
        agent.say(0, &Message::MetadataReply { id, status: 200, body: path.into_bytes() });
    }
    let (0, Message::MetadataRequest { id, path }) = agent.next() else { panic!() };
    agent.say(0, &Message::MetadataReply { id, status: 200, body: path.into_bytes() });
    for (number, program) in programs.into_iter().enumerate() {
        let answer = answer(program);
        assert!(answer.ends_with(&format!("\r\n\r\n/{number}")), "{number}: {answer}");
    }
}

#[test]
fn a_process_that_is_not_the_first_renews_nothing() {
    let mut agent = Agent::start();
    let before = std::fs::read("/proc/sys/kernel/hostname").unwrap();
    agent.say(
        0,
        &Message::Renew(Renewal {
            entropy: vec![1; 32],
            wall_clock_ns: 0,
            hostname: "not-this-machine".to_owned(),
            machine_id: [0; 16],
            boot_id: [0; 16],
            generation: 1,
        }),
    );
    // The host does not wait for the answer; nobody may meet a machine like another.
    let program = Some(ExecRequest::new(["true"]));
    agent.say(7, &Message::Converse(Conversation { tpn: echo(), program }));
    assert!(matches!(agent.next(), (0, Message::RenewFailed(_))));
    match agent.next() {
        (7, Message::Failed(why)) => assert!(why.contains("renewed"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read("/proc/sys/kernel/hostname").unwrap(), before);
}

fn connect(agent: &Agent) -> UnixStream {
    UnixStream::connect(agent.directory.join("postgresql/.s.PGSQL.5432")).unwrap()
}

#[test]
fn programs_that_connect_to_their_database_have_streams_of_their_own() {
    let mut agent = Agent::start();
    let mut client = connect(&agent);
    client.write_all(b"hello").unwrap();
    let (first, message) = agent.next();
    assert_eq!((first, message), (FIRST_GUEST_STREAM, Message::Connect));
    assert_eq!(agent.next(), (first, Message::Stdout(b"hello".to_vec())));
    agent.say(first, &Message::Stdin(b"you".to_vec()));
    let mut heard = [0; 3];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"you");

    let mut second = connect(&agent);
    assert_eq!(agent.next(), (FIRST_GUEST_STREAM + 1, Message::Connect));
    // The host closes one, the program the other.
    agent.say(FIRST_GUEST_STREAM + 1, &Message::Close);
    assert_eq!(second.read(&mut heard).unwrap(), 0);
    let (_, _, last) = agent.finish(FIRST_GUEST_STREAM + 1);
    assert!(matches!(last, Message::Exited(_)));
    agent.say(first, &Message::StdinEnd);
    assert_eq!(client.read(&mut heard).unwrap(), 0);
    drop(client);
    assert_eq!(agent.finish(first).2, exited(0));
}

#[test]
fn a_program_with_too_many_connections_finds_them_closed() {
    let mut agent = Agent::start();
    let clients: Vec<_> = (0..=MAX_CONNECTIONS).map(|_| connect(&agent)).collect();
    for number in 0..MAX_CONNECTIONS {
        let stream = FIRST_GUEST_STREAM + u32::try_from(number).unwrap();
        assert_eq!(agent.next(), (stream, Message::Connect));
    }
    assert_eq!((&clients[MAX_CONNECTIONS]).read(&mut [0]).unwrap(), 0);
    drop(clients);
    let ended = (0..MAX_CONNECTIONS).map(|_| agent.next().1);
    assert!(ended.into_iter().all(|last| last == exited(0)));
}
