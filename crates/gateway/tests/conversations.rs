//! Whole conversations, over real sockets, with programs of every kind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use gateway::{Ending, Limits, Why};
use lu62::{Confirmation, Conversation, Incoming, ReturnCode, State, Status, SyncLevel};
use support::{Event, host, limits};

/// Receives until the right to send is here.
fn receive_turn(conversation: &mut Conversation) -> Vec<u8> {
    let mut all = Vec::new();
    while conversation.state() == State::Receive {
        if let Incoming::Data(data) = conversation.receive().unwrap() {
            all.extend(data.bytes);
        }
    }
    all
}

/// Receives so many bytes.
fn receive_bytes(conversation: &mut Conversation, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        match conversation.receive().unwrap() {
            Incoming::Data(data) => all.extend(data.bytes),
            Incoming::Status(status) => panic!("{status:?}"),
        }
    }
    all
}

/// Receives to the end of the conversation.
fn receive_all(conversation: &mut Conversation) -> (Vec<u8>, ReturnCode) {
    let mut all = Vec::new();
    loop {
        match conversation.receive() {
            Ok(Incoming::Data(data)) => all.extend(data.bytes),
            Ok(Incoming::Status(_)) => {}
            Err(error) => return (all, error.return_code()),
        }
    }
}

#[test]
fn a_question_an_answer_the_turn_and_a_confirmed_end() {
    let host = host(limits());
    let mut user = host.request("echo").allocate().unwrap();
    user.send_data(b"hello").unwrap();
    assert_eq!(receive_bytes(&mut user, 5), b"hello");
    user.request_to_send().unwrap();
    assert_eq!(receive_turn(&mut user), b"");
    user.send_data(b"again").unwrap();
    assert_eq!(receive_bytes(&mut user, 5), b"again");
    user.request_to_send().unwrap();
    receive_turn(&mut user);
    user.deallocate().unwrap();
    assert_eq!(host.event(), Event::Ended(Ending::Confirmed));
    assert_eq!(host.event(), Event::Gone);
}

#[test]
fn the_end_of_input_is_told_and_all_output_comes() {
    let host = host(limits());
    let mut user = host.request("count").allocate().unwrap();
    user.send_data(&[1; 30_000]).unwrap();
    user.end_of_input().unwrap();
    assert_eq!(receive_all(&mut user), (b"30000\n".to_vec(), ReturnCode::DeallocatedNormal));
}

#[test]
fn output_is_held_until_the_user_gives_the_turn() {
    let host = host(limits());
    let mut user = host.request("burst").allocate().unwrap();
    user.send_data(b"x").unwrap();
    user.confirm().unwrap();
    // The user is told that there is something, and not given it.
    while !user.request_to_send_received().unwrap() {
        user.confirm().unwrap();
    }
    assert_eq!(user.state(), State::Send);
    let (all, code) = receive_all(&mut user);
    assert_eq!((all.len(), code), (300_000, ReturnCode::DeallocatedNormal));
}

#[test]
fn confirm_in_the_middle_comes_when_the_program_has_taken_all() {
    let host = host(limits());
    let mut user = host.request("stays").allocate().unwrap();
    user.send_data(&[1; 20_000]).unwrap();
    user.confirm().unwrap();
    user.prepare_to_receive(Confirmation::Confirm).unwrap();
    user.request_to_send().unwrap();
    assert_eq!(user.receive().unwrap(), Incoming::Status(Status::Send));
    user.send_data(b"more").unwrap();
}

#[test]
fn each_abnormal_end_has_its_code_and_output_before_it_is_not_lost() {
    let host = host(limits());
    let cases = [
        ("fails", ReturnCode::DeallocatedAbend),
        ("dies", ReturnCode::DeallocatedAbendService),
        ("lost", ReturnCode::ResourceFailureRetry),
    ];
    for (program, code) in cases {
        let mut user = host.request(program).allocate().unwrap();
        user.send_data(b"hello").unwrap();
        let (output, ended) = receive_all(&mut user);
        assert_eq!(ended, code, "{program}");
        if program != "lost" {
            assert_eq!(output, b"last words", "{program}");
        }
    }
}

#[test]
fn a_failed_program_is_not_confirmed() {
    let host = host(limits());
    for (program, code) in [
        ("fails", ReturnCode::DeallocatedAbend),
        ("dies", ReturnCode::DeallocatedAbendService),
        ("lost", ReturnCode::ResourceFailureRetry),
    ] {
        let mut user = host.request(program).allocate().unwrap();
        user.send_data(b"hello").unwrap();
        assert_eq!(user.deallocate().unwrap_err().return_code(), code, "{program}");
    }
}

#[test]
fn a_program_that_never_confirms_runs_into_its_deadline() {
    let host = host(Limits { confirm: Duration::from_millis(50), ..limits() });
    for program in ["stays", "deaf"] {
        let mut user = host.request(program).allocate().unwrap();
        user.send_data(b"hello").unwrap();
        let error = user.deallocate().unwrap_err();
        assert_eq!(error.return_code(), ReturnCode::DeallocatedAbendTimer);
        assert_eq!(host.event(), Event::Abend(Why::Deadline));
        assert_eq!(host.event(), Event::Gone);
    }
}

#[test]
fn silence_is_bounded() {
    let host = host(Limits { idle: Duration::from_millis(50), ..limits() });
    let mut user = host.request("stays").allocate().unwrap();
    assert_eq!(receive_all(&mut user).1, ReturnCode::DeallocatedAbendTimer);
    assert_eq!(host.event(), Event::Abend(Why::Idle));
}

#[test]
fn without_sync_level_the_end_is_not_waited_for() {
    let host = host(limits());
    let mut request = host.request("fails");
    request.set_sync_level(SyncLevel::None);
    let mut user = request.allocate().unwrap();
    user.send_data(b"hello").unwrap();
    user.deallocate().unwrap();
    assert_eq!(host.event(), Event::Ended(Ending::Error(3)));
    assert_eq!(host.event(), Event::Gone);
}

#[test]
fn what_a_program_floods_is_bounded_and_thrown_away_at_the_end() {
    let host = host(Limits { confirm: Duration::from_millis(50), ..limits() });
    let mut user = host.request("flood").allocate().unwrap();
    assert!(receive_bytes(&mut user, 1_000_000).iter().all(|byte| *byte == 7));
    user.request_to_send().unwrap();
    receive_turn(&mut user);
    let error = user.deallocate().unwrap_err();
    assert_eq!(error.return_code(), ReturnCode::DeallocatedAbendTimer);
}

#[test]
fn a_user_who_sends_turn_by_turn_cannot_stand_still_with_an_echo() {
    let host = host(limits());
    let mut user = host.request("echo").allocate().unwrap();
    let mut back = 0;
    for _ in 0..20 {
        for _ in 0..4 {
            user.send_data(&[5; lu62::TURN / 4]).unwrap();
        }
        user.prepare_to_receive(Confirmation::Flush).unwrap();
        user.request_to_send().unwrap();
        back += receive_turn(&mut user).len();
    }
    user.end_of_input().unwrap();
    let (rest, code) = receive_all(&mut user);
    assert_eq!(code, ReturnCode::DeallocatedNormal);
    assert_eq!(back + rest.len(), 20 * lu62::TURN);
}

#[test]
fn sixty_four_users_at_once() {
    let host = host(limits());
    std::thread::scope(|scope| {
        for user in 0..64_u32 {
            let request = if user % 2 == 0 {
                host.request("echo")
            } else {
                let mut request = host.far_request("echo");
                request.set_security_password("alice", "secret");
                request
            };
            scope.spawn(move || {
                let text = user.to_string().repeat(1000);
                let mut conversation = request.allocate().unwrap();
                conversation.send_data(text.as_bytes()).unwrap();
                assert_eq!(receive_bytes(&mut conversation, text.len()), text.as_bytes());
                conversation.request_to_send().unwrap();
                receive_turn(&mut conversation);
                conversation.deallocate().unwrap();
            });
        }
    });
}

/// The example of the `lu62` crate's documentation, but for the socket and the
/// program.
#[test]
fn the_example_of_the_documentation() {
    let host = host(limits());
    let mut mail = host.request("echo").allocate().unwrap();
    mail.send_data(b"list\n").unwrap();
    let Incoming::Data(data) = mail.receive().unwrap() else { panic!() };
    assert_eq!(data.bytes, b"list\n");
    mail.request_to_send().unwrap();
    while mail.state() == State::Receive {
        mail.receive().unwrap();
    }
    mail.deallocate().unwrap();
    assert_eq!(mail.state(), State::Reset);
}
