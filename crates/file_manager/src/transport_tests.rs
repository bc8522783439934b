//! The service and its clients, over pairs of sockets.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use service_pool::UserId;

use crate::guest_kernel::{Kernel, ROOT, World, opcode};
use crate::wire::{MAX_IN_FLIGHT, Reply, Request};
use crate::{BeginError, Client, MAX_REPLY, Quota, Service};

/// What a client was told of a request.
type Told = (u64, Option<Vec<u8>>);

const SOON: Duration = Duration::from_secs(20);

fn world() -> (World, Service) {
    let world = World::new(Quota::default());
    let service = Service::new(world.manager.clone());
    (world, service)
}

fn client() -> (Client, Receiver<Told>) {
    let (tell, told) = channel();
    let on_reply = move |tag, reply| drop(tell.send((tag, reply)));
    (Client::start(Box::new(on_reply)).unwrap(), told)
}

fn begin(service: &Service, machine: &str, user: &str) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let who = Some((UserId::new(user).unwrap(), Vec::new()));
    service.begin(machine, who, theirs).unwrap();
    ours
}

fn request(tag: u64, opcode: u32, arguments: &[u8]) -> Request {
    let bytes = Kernel::request(opcode, tag, ROOT, &[arguments]);
    Request { tag, room: MAX_REPLY as u32, bytes }
}

fn look_up(tag: u64, name: &str) -> Request {
    request(tag, opcode::LOOKUP, format!("{name}\0").as_bytes())
}

/// The error number of the reply to `tag`; `None` if there was none.
fn outcome(told: &Receiver<Told>, tag: u64) -> Option<i32> {
    let (its, reply) = told.recv_timeout(SOON).expect("an answer");
    assert_eq!(its, tag);
    reply.map(|bytes| -i32::from_le_bytes(bytes[4..8].try_into().unwrap()))
}

#[test]
fn a_machine_is_whose_its_session_is() {
    let (_world, service) = world();
    let (client, told) = client();
    client.connect(begin(&service, "serve-00", "alice")).unwrap();
    client.sender().send(look_up(1, "alice"));
    assert_eq!(outcome(&told, 1), Some(0));
    client.sender().send(look_up(2, "bob"));
    assert_eq!(outcome(&told, 2), Some(2));
    client.sender().send(request(3, opcode::FORGET, &1_u64.to_le_bytes()));
    assert_eq!(told.recv_timeout(SOON).unwrap(), (3, Some(Vec::new())));

    client.connect(begin(&service, "serve-00", "bob")).unwrap();
    client.sender().send(look_up(4, "alice"));
    assert_eq!(outcome(&told, 4), Some(2));
    client.sender().send(look_up(5, "bob"));
    assert_eq!(outcome(&told, 5), Some(0));
}

#[test]
fn a_session_that_ended_answers_nothing_more() {
    let (world, service) = world();
    let mut stream = begin(&service, "serve-00", "alice");
    look_up(1, "alice").write(&mut stream).unwrap();
    assert!(Reply::read(&mut stream).unwrap().is_some());
    assert!(service.end("serve-00"));
    // Its descriptors are closed: nobody but the manager and this test has it.
    let late = look_up(2, "alice").write(&mut stream).is_err()
        || !matches!(Reply::read(&mut stream), Ok(Some(_)));
    assert!(late);
    assert!(service.end("serve-00"), "again does no harm");
    drop(world);
}

#[test]
fn a_lost_session_fails_its_requests_and_the_next_serves() {
    let (_world, service) = world();
    let (client, told) = client();
    // A manager that takes requests and dies.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    client.connect(ours).unwrap();
    client.sender().send(look_up(1, "alice"));
    assert_eq!(Request::read(&mut theirs).unwrap().map(|request| request.tag), Some(1));
    drop(theirs);
    assert_eq!(outcome(&told, 1), None);
    // One sent while there is none waits for the next.
    client.sender().send(look_up(2, "alice"));
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
    client.connect(begin(&service, "serve-00", "alice")).unwrap();
    assert_eq!(outcome(&told, 2), Some(0));
    // Or in vain, but not for ever.
    client.disconnect();
    client.sender().send(look_up(3, "alice"));
    assert_eq!(outcome(&told, 3), None);
}

#[test]
fn what_was_sent_before_a_disconnect_reaches_nobody() {
    let (_world, service) = world();
    let (client, told) = client();
    client.sender().send(look_up(1, "alice"));
    client.disconnect();
    client.connect(begin(&service, "serve-00", "bob")).unwrap();
    client.sender().send(look_up(2, "bob"));
    assert_eq!(outcome(&told, 2), Some(0), "and the first has no reply");
}

#[test]
fn a_machine_that_reads_nothing_delays_nobody() {
    let (_world, service) = world();
    let mut slow = begin(&service, "serve-00", "alice");
    slow.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // Until both ends are full.
    let full = (0..100_000).any(|tag| look_up(tag, "alice").write(&mut slow).is_err());
    assert!(full);
    let mut other = begin(&service, "serve-01", "alice");
    look_up(1, "alice").write(&mut other).unwrap();
    assert!(Reply::read(&mut other).unwrap().is_some());
    assert!(service.end("serve-00"), "and it can be ended");
}

#[test]
fn more_than_may_be_in_flight_fails_at_once() {
    let (client, told) = client();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    client.connect(ours).unwrap();
    for tag in 0..=MAX_IN_FLIGHT as u64 {
        client.sender().send(look_up(tag, "alice"));
    }
    assert_eq!(outcome(&told, MAX_IN_FLIGHT as u64), None);
}

#[test]
fn garbage_ends_a_session_and_no_other() {
    use std::io::{Read, Write};
    let (_world, service) = world();
    let mut bad = begin(&service, "serve-00", "alice");
    let mut good = begin(&service, "serve-01", "alice");
    bad.write_all(&[0xff; 64]).unwrap();
    let ended = bad.read(&mut [0; 16]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    look_up(1, "alice").write(&mut good).unwrap();
    assert!(Reply::read(&mut good).unwrap().is_some());
}

#[test]
fn who_can_have_no_space_gets_no_session() {
    let (world, service) = world();
    world.manager.change(|table| table.add_space(&"team".parse().unwrap(), None)).unwrap();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let who = Some((UserId::new("team").unwrap(), Vec::new()));
    let refused = service.begin("serve-00", who, theirs);
    assert!(matches!(refused, Err(BeginError::Manager(_))));
}
