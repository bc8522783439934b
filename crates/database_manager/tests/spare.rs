//! Connections that are opened before a guest wants them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use database_manager::Limits;
use support::{Bench, ask, code, connect};

async fn process(client: &tokio_postgres::Client) -> String {
    ask(client, "SELECT pg_backend_pid()").await.unwrap().unwrap()
}

/// A machine that has connected and has a connection to spare, in this process.
async fn machine_with_spare(bench: &Bench) -> (database_manager::Client, String) {
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let _first = connect(&machine).await.unwrap();
    (machine, the_spare(bench))
}

/// The process of alice's connection to spare: it has no application, and is younger
/// than all that have: one with other settings may be on its way out.
fn the_spare(bench: &Bench) -> String {
    const SPARE: &str = "usename = 'alice' AND application_name = '' AND backend_start > ALL \
        (SELECT backend_start FROM pg_stat_activity WHERE application_name = 'a test')";
    bench.await_activity(SPARE, 1);
    bench.server.sql("postgres", &format!("SELECT pid FROM pg_stat_activity WHERE {SPARE}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connection_is_one_that_was_nobodys() {
    let bench = Bench::new();
    let (machine, mut spare) = machine_with_spare(&bench).await;
    for _ in 0..3 {
        let client = connect(&machine).await.unwrap();
        assert_eq!(process(&client).await, spare);
        assert_eq!(ask(&client, "SHOW application_name").await.unwrap().as_deref(), Some("a test"));
        spare = the_spare(&bench);
    }
    // A conversation's first as well.
    bench.end("m-01");
    bench.await_connections("alice", 0);
    let other = bench.machine("m-02", "alice", &[]);
    let spare = the_spare(&bench);
    assert_eq!(process(&connect(&other).await.unwrap()).await, spare);
    // Bob's machine has nothing of it.
    bench.grant("user:bob", "bob", Limits::default());
    let bobs = bench.machine("m-03", "bob", &[]);
    let client = connect(&bobs).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap().as_deref(), Some("bob"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_of_no_use_with_other_settings() {
    let bench = Bench::new();
    let (machine, spare) = machine_with_spare(&bench).await;
    let mut config = tokio_postgres::Config::new();
    config.user("root").application_name("it's \\ é; SELECT");
    let (client, connection) =
        config.connect_raw(support::stream(&machine), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_ne!(process(&client).await, spare);
    // PostgreSQL has ASCII only in this.
    let name = ask(&client, "SHOW application_name").await.unwrap().unwrap();
    assert!(name.starts_with("it's \\ ") && name.ends_with("; SELECT"), "{name}");
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
