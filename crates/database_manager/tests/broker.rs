//! Guests, the broker and a real PostgreSQL.

mod support;

use database_manager::{Limits, Used, UsedLogin};
use support::{Bench, LIMIT, ask, code, connect, connect_as};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_whoever_the_host_says_and_nobody_else() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    bench.grant("group:staff", "bob", Limits::default());
    let alice = bench.machine("m-01", "alice", &["staff"]);
    let client = connect_as(&alice, "postgres").await.unwrap();
    let who = "SELECT current_user || ' ' || session_user || ' ' || current_database()";
    assert_eq!(ask(&client, who).await.unwrap().as_deref(), Some("alice alice alice"));
    for other in ["SET ROLE bob", "SET SESSION AUTHORIZATION bob", "SET ROLE postgres"] {
        assert_eq!(code(&ask(&client, other).await.unwrap_err()), "42501", "{other}");
    }
    ask(&client, "CREATE TABLE notes (text text)").await.unwrap();
    ask(&client, "INSERT INTO notes VALUES ('mine')").await.unwrap();

    // At the same time, another machine of hers and one of somebody else's.
    let second = bench.machine("m-02", "alice", &[]);
    let again = connect(&second).await.unwrap();
    let note = "SELECT text FROM notes";
    assert_eq!(ask(&again, note).await.unwrap().as_deref(), Some("mine"));
    let bob = bench.machine("m-03", "bob", &["staff"]);
    let bobs = connect(&bob).await.unwrap();
    assert_eq!(code(&ask(&bobs, note).await.unwrap_err()), "42P01");

    // The first machine is Bob's now: her connection is gone, his is his.
    let used = bench.end("m-01");
    let login = |name: &str, connections| {
        let (database, role) = (name.to_owned(), name.to_owned());
        UsedLogin { database, role, connections }
    };
    assert_eq!(used, Used { logins: vec![login("alice", 1)], refused: 0 });
    assert!(ask(&client, "SELECT 1").await.is_err());
    assert!(alice.connect(LIMIT).is_err());
    let now_bobs = bench.machine("m-01", "bob", &["staff"]);
    let client = connect(&now_bobs).await.unwrap();
    assert_eq!(code(&ask(&client, note).await.unwrap_err()), "42P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_and_a_revoke_count_at_once() {
    let bench = Bench::new();
    let machine = bench.machine("m-01", "alice", &["staff"]);
    let refused = connect(&machine).await.err().unwrap();
    assert_eq!(code(&refused), "28000");
    bench.grant("user:alice", "alice", Limits::default());
    let client = connect(&machine).await.unwrap();
    // Other bounds end nothing, another role does.
    bench.grant("user:alice", "alice", Limits { connections: 1, ..Limits::default() });
    assert_eq!(ask(&client, "SELECT 1").await.unwrap().as_deref(), Some("1"));
    bench.grant("user:alice", "bob", Limits::default());
    assert!(ask(&client, "SELECT 1").await.is_err());
    let client = connect(&machine).await.unwrap();
    assert_eq!(ask(&client, "SELECT current_user").await.unwrap().as_deref(), Some("bob"));
    bench.revoke("user:alice");
    assert!(ask(&client, "SELECT 1").await.is_err());
    assert_eq!(code(&connect(&machine).await.err().unwrap()), "28000");
    assert_eq!(bench.end("m-01").refused, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_ends_with_the_conversation_even_if_it_resists() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    let resists = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); \
                   EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let running = tokio::spawn(async move { ask(&client, resists).await.is_err() });
    let query =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active'";
    while bench.server.sql("postgres", query) != "1" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    bench.end("m-01");
    assert!(running.await.unwrap());
    bench.await_connections("alice", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_cancels_what_it_runs() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    let cancel = client.cancel_token();
    let running = tokio::spawn(async move { ask(&client, "SELECT pg_sleep(600)").await });
    let other = bench.machine("m-02", "alice", &[]);
    while !running.is_finished() {
        // By another machine of the same user it is of no use.
        let far = support::stream(&other);
        cancel.cancel_query_raw(far, tokio_postgres::NoTls).await.unwrap();
        assert!(!running.is_finished());
        let near = support::stream(&machine);
        cancel.cancel_query_raw(near, tokio_postgres::NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(code(&running.await.unwrap().unwrap_err()), "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_with_all_its_connections_cancels_what_they_run() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits { connections: 1, ..Limits::default() });
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    let cancel = client.cancel_token();
    let running = tokio::spawn(async move { ask(&client, "SELECT pg_sleep(600)").await });
    while !running.is_finished() {
        cancel.cancel_query_raw(support::stream(&machine), tokio_postgres::NoTls).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(code(&running.await.unwrap().unwrap_err()), "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_counts_is_what_the_role_is_when_the_guest_has_spoken() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits { connections: 1, ..Limits::default() });
    let machine = bench.machine("m-01", "alice", &[]);
    // The server has made room for each already.
    let (danger, granted) = (support::stream(&machine), bench.machine("m-02", "alice", &[]));
    bench.server.sql("postgres", "GRANT bob TO alice");
    let refused = support::connect_over(danger, "root").await.err().unwrap();
    assert_eq!(code(&refused), "28000");
    bench.server.sql("postgres", "REVOKE bob FROM alice");
    let silent = support::stream(&granted);
    bench.revoke("user:alice");
    assert!(support::connect_over(silent, "root").await.is_err());
    assert_eq!(code(&connect(&granted).await.err().unwrap()), "28000");
    bench.await_connections("alice", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_whatever_the_guest_sets() {
    const PROGRAMS: &str = "usename = 'alice' AND application_name = 'a test'";
    let bench = Bench::new();
    let limits = Limits { connections: 2, idle: Some(1), lifetime: None };
    bench.grant("user:alice", "alice", limits);
    let (one, two) = (bench.machine("m-01", "alice", &[]), bench.machine("m-02", "alice", &[]));
    let first = connect(&one).await.unwrap();
    let _second = connect(&two).await.unwrap();
    assert_eq!(code(&connect(&two).await.err().unwrap()), "53300");
    ask(&first, "SET idle_session_timeout = 0").await.unwrap();
    bench.await_activity(PROGRAMS, 0);
    assert!(ask(&first, "SELECT 1").await.is_err());

    bench.grant("user:alice", "alice", Limits { idle: None, lifetime: Some(1), ..limits });
    let long = connect(&one).await.unwrap();
    assert!(ask(&long, "SELECT pg_sleep(600)").await.is_err());
    bench.await_activity(PROGRAMS, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_could_become_others_are_not_let_in() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let ways = [
        ("ALTER ROLE alice SUPERUSER", "ALTER ROLE alice NOSUPERUSER"),
        ("ALTER ROLE alice CREATEROLE", "ALTER ROLE alice NOCREATEROLE"),
        ("ALTER ROLE alice REPLICATION", "ALTER ROLE alice NOREPLICATION"),
        ("ALTER ROLE alice BYPASSRLS", "ALTER ROLE alice NOBYPASSRLS"),
        ("GRANT bob TO alice", "REVOKE bob FROM alice"),
        ("GRANT pg_read_server_files TO alice", "REVOKE pg_read_server_files FROM alice"),
    ];
    for (way, back) in ways {
        bench.server.sql("postgres", way);
        // It was let in a moment ago.
        let refused = connect(&machine).await.err().unwrap();
        assert_eq!(code(&refused), "28000", "{way}");
        bench.server.sql("postgres", back);
        assert!(connect(&machine).await.is_ok(), "{back}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_cannot_hide_what_it_is_by_its_search_path() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    let lies = "CREATE SCHEMA lies; \
        CREATE FUNCTION lies.no(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
        CREATE OPERATOR lies.<> (FUNCTION = lies.no, LEFTARG = name, RIGHTARG = name); \
        CREATE FUNCTION lies.pg_has_role(oid, oid, text) RETURNS bool LANGUAGE sql \
        AS 'SELECT false'; \
        CREATE VIEW lies.pg_roles AS SELECT * FROM pg_catalog.pg_roles WHERE false; \
        ALTER ROLE alice SET search_path = lies, pg_catalog";
    ask(&client, lies).await.unwrap();
    assert!(connect(&machine).await.is_ok());
    bench.server.sql("postgres", "GRANT bob TO alice");
    bench.grant("user:alice", "alice", Limits::default());
    assert_eq!(code(&connect(&machine).await.err().unwrap()), "28000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_stopped_is_used_again() {
    let mut bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let client = connect(&machine).await.unwrap();
    bench.server.stop();
    assert!(ask(&client, "SELECT 1").await.is_err());
    assert_eq!(code(&connect(&machine).await.err().unwrap()), "57P03");
    bench.server.begin();
    let client = connect(&machine).await.unwrap();
    assert_eq!(ask(&client, "SELECT 1").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_good_password_nobody_is_let_in_and_none_is_told() {
    let bench = Bench::new();
    bench.grant("user:alice", "alice", Limits::default());
    let machine = bench.machine("m-01", "alice", &[]);
    let passwords = bench.dir.path().join("passwords");
    for lines in ["*:*:*:alice:wrong\n", "*:*:*:bob:x\n"] {
        std::fs::write(&passwords, lines).unwrap();
        let refused = connect(&machine).await.err().unwrap();
        assert_eq!(code(&refused), "28000");
        let said = refused.as_db_error().unwrap().message().to_owned();
        assert!(!said.contains("wrong") && !said.contains("alice"), "{said}");
    }
}
