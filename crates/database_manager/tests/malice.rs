//! Guests that do not speak PostgreSQL's protocol, or speak it badly.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use database_manager::{Limits, exercise};
use proptest::prelude::*;
use support::{Bench, ask, connect, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A packet as a server or a guest would begin it.
fn likely() -> impl Strategy<Value = Vec<u8>> {
    let first =
        (0_u32..300, prop::sample::select(vec![196_608_u32, 80_877_102, 80_877_103, 196_610]))
            .prop_map(|(length, code)| [length.to_be_bytes(), code.to_be_bytes()].concat());
    let kinds = prop::sample::select(b"RSKZEDTCNv".to_vec());
    let message = (kinds, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, body)| {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), &body].concat()
    });
    let garbage = prop::collection::vec(any::<u8>(), 0..100);
    let piece = prop_oneof![first, message, garbage];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_is_said_is_answered_or_ended(bytes in likely()) {
        exercise(&bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_harms_whoever_sends_it_only() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits { connections: 4, ..Limits::default() });
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    let hello = [&[0, 0, 0, 9][..], &[0, 3, 0, 0], b"\0"].concat();
    let long = [&20_000_u32.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
    let nonsense: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        long,
        [&hello[..], b"Q\xff\xff\xff\xff"].concat(),
        [&hello[..], b"Q\0\0\0\x08abc"].concat(),
        [&hello[..], &[0; 5000]].concat(),
        [&hello[..], b"B\0\0\0\x05x"].concat(),
        [&hello[..], b"p\0\0\0\x05x"].concat(),
    ];
    for bytes in nonsense {
        let mut guest = stream(&machine);
        guest.write_all(&bytes).await.unwrap();
        // Half of it may be missing: then the guest's end is the end.
        guest.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let _ = guest.read_to_end(&mut heard).await;
        assert_eq!(ask(&client, "SELECT 1").await.unwrap().as_deref(), Some("1"), "{bytes:?}");
    }
    drop(client);
    bench.end("m-01");
    bench.await_connections("alice", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_does_not_read_holds_nothing_up() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let hello = [&[0, 0, 0, 9][..], &[0, 3, 0, 0], b"\0"].concat();
    let query = b"SELECT repeat('x', 1000) FROM generate_series(1, 1000000)\0";
    let length = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
    let mut deaf = stream(&machine);
    deaf.write_all(&[&hello[..], b"Q", &length, query].concat()).await.unwrap();
    let client = connect(&machine).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap().as_deref(), Some("1"));
    bench.await_activity("usename = 'alice' AND state = 'active'", 1);
    bench.end("m-01");
    bench.await_connections("alice", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_takes_no_answers_is_given_up() {
    let bench = Bench::new();
    let (ours, theirs) = database_manager::session_pair().unwrap();
    let alice = service_pool::UserId::new("alice").unwrap();
    bench.service.begin("m-01", Some((alice, vec![])), ours).unwrap();
    let flags = rustix::net::SendFlags::NOSIGNAL;
    // Nothing is read from it: its session ends, and what it sends fails.
    let asks = tokio::task::spawn_blocking(move || {
        (0..1_000_000_u64)
            .find(|number| rustix::net::send(&theirs, &number.to_le_bytes(), flags).is_err())
    });
    assert!(asks.await.unwrap().is_some());
    bench.end("m-01");
    bench.grant("user:bob", "bob", Limits::default());
    assert!(connect(&bench.machine("m-02", "bob", &[])).await.is_ok());
}
