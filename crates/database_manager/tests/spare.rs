//! Connections that are opened before a guest wants them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use database_manager::Limits;
use support::{Bench, ask, code, connect};

/// The server's processes for `alice`.
fn processes(bench: &Bench) -> Vec<String> {
    let query = "SELECT pid FROM pg_stat_activity WHERE usename = 'alice' ORDER BY 1";
    bench.server.sql("postgres", query).lines().map(str::to_owned).collect()
}

async fn process(client: &tokio_postgres::Client) -> String {
    ask(client, "SELECT pg_backend_pid()").await.unwrap().unwrap()
}

/// A machine that has connected twice and has a connection to spare.
async fn machine_with_spare(bench: &Bench) -> (database_manager::Client, String) {
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let (one, two) = (connect(&machine).await.unwrap(), connect(&machine).await.unwrap());
    bench.await_connections("alice", 3);
    let used = [process(&one).await, process(&two).await];
    let spare = processes(bench).into_iter().find(|one| !used.contains(one)).unwrap();
    (machine, spare)
}

/// The connection to spare, once the broker has it: the server shows it sooner.
async fn given(machine: &database_manager::Client, spare: &str) -> tokio_postgres::Client {
    for _ in 0..10 {
        let client = connect(machine).await.unwrap();
        if process(&client).await == spare {
            return client;
        }
    }
    panic!("nobody gets the connection to spare")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connects_again_and_again_has_one_that_was_nobodys() {
    let bench = Bench::new();
    let (machine, spare) = machine_with_spare(&bench).await;
    let third = given(&machine, &spare).await;
    assert_eq!(ask(&third, "SHOW application_name").await.unwrap().as_deref(), Some("a test"));
    // Bob's machine has nothing of it.
    bench.grant("user:bob", "bob", Limits::default());
    let bobs = bench.machine("m-02", "bob", &[]);
    let client = connect(&bobs).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap().as_deref(), Some("bob"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_is_looked_at_when_it_is_handed_over() {
    for (way, refused) in [
        ("GRANT bob TO alice", "28000"),
        ("ALTER ROLE alice SUPERUSER", "28000"),
        ("ALTER ROLE alice NOLOGIN", "28000"),
        ("ALTER ROLE alice VALID UNTIL '2020-01-01'", "28000"),
        ("REVOKE CONNECT ON DATABASE alice FROM public, alice", "42501"),
    ] {
        let bench = Bench::new();
        let (machine, _) = machine_with_spare(&bench).await;
        bench.server.sql("postgres", way);
        let told = connect(&machine).await.err().unwrap();
        assert_eq!(code(&told), refused, "{way}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_the_conversation_and_with_the_login() {
    let bench = Bench::new();
    let (machine, _) = machine_with_spare(&bench).await;
    bench.revoke("user:alice");
    bench.await_connections("alice", 0);
    assert!(connect(&machine).await.is_err());
    bench.grant("user:alice", "alice", Limits::default());
    let _other = bench.machine("m-02", "alice", &[]);
    bench.await_connections("alice", 1);
    bench.end("m-02");
    bench.await_connections("alice", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_takes_no_room_that_somebody_wants() {
    let bench = Bench::new();
    let (machine, _) = machine_with_spare(&bench).await;
    bench.await_connections("alice", 1);
    bench.server.sql("postgres", "ALTER ROLE alice CONNECTION LIMIT 1");
    // With other settings it is of no use here, and is in the way.
    let other = bench.machine("m-02", "alice", &[]);
    let client = connect(&other).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap().as_deref(), Some("1"));
    assert_eq!(code(&connect(&machine).await.err().unwrap()), "53300");
}
