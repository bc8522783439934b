//! Who is let in, and with which word the others are sent away.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;

use conversation::Sense;
use gateway::{AttachRequest, Limits, Refusal};
use lu62::{ReturnCode, SyncLevel};
use support::{host, limits, principal};

fn refused(request: &lu62::Request) -> (ReturnCode, String) {
    let error = request.allocate().unwrap().confirm().unwrap_err();
    (error.return_code(), error.to_string())
}

#[test]
fn each_refusal_has_its_sense_code() {
    let text = String::new;
    for (refusal, sense) in [
        (Refusal::TpnNotRecognized, 0x1008_6021),
        (Refusal::NotAuthorised, 0x080f_6051),
        (Refusal::Retry(text()), 0x084b_6031),
        (Refusal::Never(text()), 0x084c_0000),
        (Refusal::PipNotAllowed, 0x1008_6031),
        (Refusal::PipNotValid, 0x1008_6032),
        (Refusal::SyncLevel, 0x1008_6041),
    ] {
        assert_eq!(refusal.sense(), Sense::from_number(sense));
    }
}

#[test]
fn each_refusal_has_its_return_code_at_the_user() {
    let host = host(limits());
    assert_eq!(refused(&host.request("busy")).0, ReturnCode::TpNotAvailableRetry);
    assert!(refused(&host.request("busy")).1.contains("all 15 machines are busy"));
    assert_eq!(refused(&host.request("never")).0, ReturnCode::TpNotAvailableNoRetry);
    let mut unknown = host.request("");
    unknown.set_tp_name("nothing");
    assert_eq!(refused(&unknown).0, ReturnCode::TpnNotRecognized);
    let mut parameters = host.request("plain");
    parameters.set_pip(&[b"x".to_vec()]);
    assert_eq!(refused(&parameters).0, ReturnCode::PipNotSpecifiedCorrectly);
}

#[test]
fn what_is_asked_for_reaches_the_service() {
    let host = host(limits());
    let mut request = host.far_request("echo");
    let token = "a-token-too-long-for-the-header".repeat(20);
    request.set_security_token("alice", &token).set_sync_level(SyncLevel::None);
    request.set_pip(&[b"one".to_vec(), b"two".to_vec()]);
    let mut user = request.allocate().unwrap();
    user.flush().unwrap();
    let attached = host.attached();
    assert_eq!((attached.pool(), attached.program()), ("test", Some("echo")));
    let expected = AttachRequest {
        lu_name: None,
        tpn: "test/echo".to_owned(),
        principal: Some(principal("alice")),
        sync_level: SyncLevel::None,
        pip: Some(vec![b"one".to_vec(), b"two".to_vec()]),
        early: Vec::new(),
    };
    assert_eq!(attached, expected);
}

#[test]
fn over_the_network_only_proofs_are_believed_and_faults_all_look_alike() {
    let host = host(limits());
    let mut request = host.far_request("echo");
    let mut answers = vec![refused(&request)];
    answers.push(refused(request.set_security_same("alice")));
    answers.push(refused(request.set_security_password("alice", "wrong")));
    answers.push(refused(request.set_security_password("nobody", "secret")));
    answers.push(refused(request.set_security_token("alice", "forged")));
    assert!(answers.iter().all(|(code, _)| *code == ReturnCode::SecurityNotValid));
    // The service's own refusal too: there is a user, without authority.
    answers.push(refused(host.far_request("echo").set_security_none()));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    request.set_security_password("alice", "secret").allocate().unwrap().confirm().unwrap();
    let mut open = host.far_request("open");
    open.set_security_none().allocate().unwrap().confirm().unwrap();
}

#[test]
fn on_the_local_socket_the_daemons_own_user_speaks_for_others_that_exist() {
    let host = host(limits());
    let mut request = host.request("echo");
    request.allocate().unwrap().confirm().unwrap();
    // The daemon runs under the uid of this test.
    request.set_security_same("bob").allocate().unwrap().confirm().unwrap();
    assert_eq!(refused(request.set_security_same("nobody")).0, ReturnCode::SecurityNotValid);
    assert_eq!(host.attached().principal, Some(principal("alice")));
    assert_eq!(host.attached().principal, Some(principal("bob")));
}

#[test]
fn sockets_and_keys_are_their_owners_only() {
    let host = host(limits());
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(host.socket()), 0o600);
    assert_eq!(mode(host.dir.path().join("gateway.key")), 0o600);
    // What was made is used again.
    let before = std::fs::read(host.dir.path().join("gateway.crt")).unwrap();
    gateway::tls::load_or_make(host.dir.path(), &["other".to_owned()]).unwrap();
    assert_eq!(std::fs::read(host.dir.path().join("gateway.crt")).unwrap(), before);
    let socket = host.socket();
    drop(host.running);
    assert!(!socket.exists());
}

#[test]
fn a_certificate_that_is_not_trusted_ends_it() {
    let host = host(limits());
    let other = tempfile::tempdir().unwrap();
    gateway::tls::load_or_make(other.path(), &["localhost".to_owned()]).unwrap();
    let address = format!("localhost:{}", host.running.address().unwrap().port());
    let trust = other.path().join("gateway.crt");
    let request = lu62::Request::initialize(lu62::Partner::Host { address, trust });
    assert_eq!(request.allocate().unwrap_err().return_code(), ReturnCode::AllocateFailureRetry);
}

#[test]
fn one_connection_too_many_is_closed() {
    let host = host(Limits { connections: 1, ..limits() });
    let mut first = host.request("echo").allocate().unwrap();
    first.confirm().unwrap();
    assert_eq!(refused(&host.request("echo")).0, ReturnCode::ResourceFailureRetry);
    first.confirm().unwrap();
}

#[test]
fn both_ends_know_how_much_goes_into_a_turn() {
    assert_eq!(gateway::coupling::TURN, lu62::TURN);
}
