//! The agent as a host sees it, served over a socket by an ordinary process.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::collections::HashMap;

use agent_protocol::{ExecRequest, INITIAL_CREDIT, MAX_COMMANDS, Message, Status, StreamId};
use support::{Agent, exited};

#[test]
fn outputs_and_exit_code_come_back() {
    let mut agent = Agent::start();
    agent.sh(1, "echo out; echo err >&2; exit 7");
    assert_eq!(agent.finish(1), (b"out\n".to_vec(), b"err\n".to_vec(), exited(7)));
}

#[test]
fn standard_input_reaches_the_command_up_to_its_end() {
    let mut agent = Agent::start();
    agent.exec(1, &["wc", "-c"]);
    agent.say(1, &Message::Stdin(vec![b'x'; 60_000]));
    agent.say(1, &Message::Stdin(vec![b'x'; 5_000]));
    agent.say(1, &Message::StdinEnd);
    let (out, _, last) = agent.finish(1);
    assert_eq!((String::from_utf8(out).unwrap().trim(), last), ("65000", exited(0)));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let mut agent = Agent::start();
    agent.exec(1, &["no-such-program"]);
    let told = Message::Failed("no-such-program: not found in the guest".to_owned());
    assert_eq!(agent.finish(1).2, told);
    agent.exec(2, &["/etc/passwd"]);
    let told = Message::Failed("/etc/passwd: not a program that the guest may execute".to_owned());
    assert_eq!(agent.finish(2).2, told);
    let request = ExecRequest { cwd: b"/nowhere".to_vec(), ..ExecRequest::new(["true"]) };
    agent.say(3, &Message::Exec(request));
    let told = Message::Failed("/nowhere: no such directory in the guest".to_owned());
    assert_eq!(agent.finish(3).2, told);
}

#[test]
fn environment_and_directory_are_those_asked_for() {
    let mut agent = Agent::start();
    let request = ExecRequest {
        env: vec![(b"COLOUR".to_vec(), b"blue".to_vec())],
        cwd: b"/usr".to_vec(),
        ..ExecRequest::new(["sh", "-c", "echo $COLOUR $HOME $TERM $(pwd)"])
    };
    agent.say(1, &Message::Exec(request));
    assert_eq!(agent.finish(1).0, b"blue /root linux /usr\n");
}

#[test]
fn a_signal_ends_the_whole_group_and_is_told() {
    let mut agent = Agent::start();
    agent.sh(1, "echo up; sleep 1000 | cat; echo not reached");
    assert!(matches!(agent.next(), (1, Message::Stdout(_))));
    agent.say(1, &Message::Signal(15));
    assert_eq!(agent.finish(1), (vec![], vec![], Message::Exited(Status::Signal(15))));
}

#[test]
fn a_closed_command_is_killed() {
    let mut agent = Agent::start();
    agent.sh(1, "trap '' TERM HUP INT; yes");
    agent.say(1, &Message::Close);
    assert_eq!(agent.finish(1).2, Message::Exited(Status::Signal(9)));
}

#[test]
fn an_unread_command_stops_at_its_credit_and_holds_up_nobody() {
    let mut agent = Agent::start();
    agent.exec(1, &["yes"]);
    let mut received = 0;
    while received < INITIAL_CREDIT {
        let (from, message) = agent.next();
        assert_eq!(from, 1);
        received += message.cost() as u32;
    }
    // Nothing more of the first may come before the second is through.
    agent.sh(2, "echo through");
    assert_eq!(agent.next(), (2, Message::Stdout(b"through\n".to_vec())));
    assert_eq!(agent.next(), (2, exited(0)));
    agent.say(1, &Message::Credit(1000));
    let (from, message) = agent.next();
    assert_eq!((from, message.cost() <= 1000), (1, true));
}

#[test]
fn a_large_output_arrives_whole() {
    let mut agent = Agent::start();
    agent.sh(1, "head -c 3000000 /dev/zero");
    let (out, _, last) = agent.finish(1);
    assert_eq!((out.len(), last), (3_000_000, exited(0)));
}

#[test]
fn what_a_command_leaves_running_does_not_keep_it_from_ending() {
    let mut agent = Agent::start();
    agent.sh(1, "sleep 1000 & echo $!");
    let (out, _, last) = agent.finish(1);
    assert_eq!(last, exited(0));
    let left = String::from_utf8(out).unwrap();
    agent.sh(2, &format!("kill {}", left.trim()));
    assert_eq!(agent.finish(2).2, exited(0));
}

#[test]
fn the_most_commands_run_at_once_and_one_more_is_told_so() {
    let mut agent = Agent::start();
    let most = MAX_COMMANDS as u32;
    for stream in 1..=most {
        agent.exec(stream, &["cat"]);
    }
    agent.exec(most + 1, &["true"]);
    assert!(matches!(agent.next(), (from, Message::Failed(_)) if from == most + 1));
    for stream in 1..=most {
        agent.say(stream, &Message::Stdin(stream.to_string().into_bytes()));
        agent.say(stream, &Message::StdinEnd);
    }
    let mut heard: HashMap<StreamId, Vec<u8>> = HashMap::new();
    let mut ended = 0;
    while ended < most {
        match agent.next() {
            (stream, Message::Stdout(bytes)) => heard.entry(stream).or_default().extend(bytes),
            (_, message) => {
                assert_eq!(message, exited(0));
                ended += 1;
            }
        }
    }
    assert!((1..=most).all(|stream| heard[&stream] == stream.to_string().into_bytes()));
    agent.exec(most + 2, &["true"]);
    assert_eq!(agent.finish(most + 2).2, exited(0));
}

#[test]
fn a_ping_is_answered_while_commands_flood() {
    let mut agent = Agent::start();
    agent.exec(1, &["yes"]);
    agent.say(0, &Message::Ping(77));
    assert_eq!(agent.finish(0).2, Message::Pong(77));
}

#[test]
fn standard_input_beyond_the_credit_ends_the_command() {
    let mut agent = Agent::start();
    agent.exec(1, &["sleep", "1000"]);
    // More than its window and the pipe behind it take.
    for _ in 0..3 {
        agent.say(1, &Message::Stdin(vec![0; 60_000]));
    }
    assert_eq!(agent.finish(1).2, Message::Exited(Status::Signal(9)));
}
