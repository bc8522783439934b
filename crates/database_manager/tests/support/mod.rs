//! A broker beside a real PostgreSQL, and guests that connect by it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use database_manager::test_server::TestServer;
use database_manager::{Broker, Client, Limits, Login, ServerSpec, Service, Used, session_pair};
use service_pool::{Group, UserId};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// How long anything may take that is expected to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) server: TestServer,
    pub(crate) service: Arc<Service>,
    pub(crate) dir: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Bench {
    /// A server with the roles `alice` and `bob`, whose passwords the broker has.
    pub(crate) fn new() -> Self {
        let server = TestServer::start();
        let dir = TempDir::new().unwrap();
        let lines = ["alice", "bob"].map(|role| server.add_role(role)).concat();
        let spec = spec(&server, &dir, &lines);
        let broker = Arc::new(Broker::open(spec, &dir.path().join("logins.json")).unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let service = Arc::new(Service::new(broker, runtime.handle().clone()));
        Self { server, service, dir, runtime: Some(runtime) }
    }

    /// Another broker to the same server.
    pub(crate) fn replace(&mut self, broker: Arc<Broker>) {
        let runtime = self.runtime.as_ref().unwrap().handle().clone();
        self.service = Arc::new(Service::new(broker, runtime));
    }

    pub(crate) fn grant(&self, to: &str, role: &str, limits: Limits) {
        let (database, role) = (role.parse().unwrap(), role.parse().unwrap());
        let login = Login { database, role, limits };
        let granted =
            |table: &mut database_manager::LoginTable| table.grant(to.parse().unwrap(), login);
        self.service.broker().change(granted).unwrap();
    }

    pub(crate) fn revoke(&self, from: &str) {
        self.service.broker().change(|table| table.revoke(&from.parse().unwrap())).unwrap();
    }

    /// A machine that is this user's, of these groups.
    pub(crate) fn machine(&self, name: &str, user: &str, groups: &[&str]) -> Client {
        let groups = groups.iter().map(|group| Group::new(group).unwrap()).collect();
        let (ours, theirs) = session_pair().unwrap();
        self.service.begin(name, Some((UserId::new(user).unwrap(), groups)), ours).unwrap();
        Client::new(theirs)
    }

    pub(crate) fn end(&self, name: &str) -> Used {
        self.service.end(name).unwrap().unwrap()
    }

    /// Waits until the server has this many connections of a role's, those to spare
    /// included.
    pub(crate) fn await_connections(&self, role: &str, count: usize) {
        self.await_activity(&format!("usename = '{role}'"), count);
    }

    /// Waits until the server has this many connections that `condition` is true of.
    pub(crate) fn await_activity(&self, condition: &str, count: usize) {
        let query = format!("SELECT count(*) FROM pg_stat_activity WHERE {condition}");
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            let now = self.server.sql("postgres", &query);
            if now == count.to_string() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{now} connections with {condition}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The server of a broker that has these lines of credentials.
pub(crate) fn spec(server: &TestServer, dir: &TempDir, lines: &str) -> ServerSpec {
    let credentials = dir.path().join("passwords");
    fs::write(&credentials, lines).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let address = server.address().parse().unwrap();
    ServerSpec { address, authority: None, credentials: Some(credentials) }
}

/// A stream of the guest's, as a program in it has one.
pub(crate) fn stream(machine: &Client) -> UnixStream {
    let stream = machine.connect(LIMIT).unwrap();
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

/// An ordinary client that says it is `user`.
pub(crate) async fn connect_as(
    machine: &Client,
    user: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    connect_over(stream(machine), user).await
}

/// The same over a stream that the guest has already.
pub(crate) async fn connect_over(
    stream: UnixStream,
    user: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.user(user).dbname("whatever").application_name("a test");
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) async fn connect(
    machine: &Client,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    connect_as(machine, "root").await
}

/// The first field of the first row.
pub(crate) async fn ask(
    client: &tokio_postgres::Client,
    query: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let rows = client.simple_query(query).await?;
    Ok(rows.into_iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

/// The code of the error that the server, or the broker, answered.
pub(crate) fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("none", tokio_postgres::error::SqlState::code)
}
