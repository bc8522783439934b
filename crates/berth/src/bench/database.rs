//! `berth bench database`: what the broker adds to a connection of PostgreSQL's.
//!
//! A host of its own has a pool of one machine, whose user has a login at a server that
//! is there already. A program in the machine connects by the plainest client there
//! can be, and asks nothing; the same login connects to the server directly, from the
//! host, in between. Another one connects twice at once, in a conversation each.

use std::time::Duration;

use database_manager::{Login, MeasureError, ServerSpec, time_of_login};
use operator_api::model::{Command, DatabaseLogin};
use serde::Deserialize;
use storage_window::bench::median;

use super::{Row, Rows};
use crate::own_host::{OwnHost, OwnHostError};

/// Connections in each round, by either way.
const CONNECTIONS: usize = 20;
/// Between two of them, in which the last one's end is dealt with.
const PAUSE: Duration = Duration::from_millis(50);
/// The user whose machine it is.
const USER: &str = "bench";
/// Conversations in each round whose first two connections are measured.
const CONVERSATIONS: usize = 5;
/// Connects as an ordinary client does, with settings. The first call of a function is
/// slower than the others: Python looks up what it calls.
const CLIENT: &str = r#"import json, socket, struct, time
SETTINGS = b"application_name\0bench\0client_encoding\0UTF8\0\0"
HELLO = struct.pack("!ii", 8 + len(SETTINGS), 196608) + SETTINGS
EMPTY = b"Q" + struct.pack("!i", 5) + bytes(1)
READY = b"Z" + struct.pack("!i", 5)
connects, trips = [], []
def trip(stream, question):
    stream.sendall(question)
    heard = b""
    while heard[-6:-1] != READY:
        piece = stream.recv(65536)
        if not piece or heard[:1] == b"E":
            raise SystemExit(repr(heard))
        heard += piece
def connect(stream):
    begun = time.perf_counter()
    stream.connect("/run/postgresql/.s.PGSQL.5432")
    trip(stream, HELLO)
    connects.append((time.perf_counter() - begun) * 1e6)
def say():
    print(json.dumps({"connects": connects, "trips": trips}))
"#;
/// Says how long connections took, and empty round trips on them, in microseconds.
const MEASURE: &str = r#"
for _ in range(COUNT + 1):
    # What the last one left behind is not this one's.
    time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as stream:
        connect(stream)
        for _ in range(5):
            begun = time.perf_counter()
            trip(stream, EMPTY)
            trips.append((time.perf_counter() - begun) * 1e6)
        stream.sendall(b"X" + struct.pack("!i", 4))
del connects[0], trips[0]
say()
"#;
/// Says how long a conversation's first connection took, and its second at once after it.
const BEGIN: &str = r#"
near, far = socket.socketpair()
far.sendall(READY + b"I")
trip(near, EMPTY)
streams = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for stream in streams:
    connect(stream)
say()
"#;

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseBenchError {
    #[error(transparent)]
    Host(#[from] OwnHostError),
    #[error(transparent)]
    Server(#[from] MeasureError),
    #[error("the program in the machine said {said:?}")]
    Program { said: String },
    #[error("the server cannot be written into a host file")]
    HostFile(#[from] toml::ser::Error),
}

/// What the program says, in microseconds.
#[derive(Debug, Default, Deserialize)]
struct Heard {
    connects: Vec<f64>,
    trips: Vec<f64>,
}

/// What was measured, in microseconds.
#[derive(Debug, Default)]
struct Measured {
    direct: Vec<f64>,
    connects: Vec<f64>,
    trips: Vec<f64>,
    firsts: Vec<f64>,
    seconds: Vec<f64>,
}

/// Measures `rounds` rounds at this server; `note` is told what happens.
pub(crate) fn run(
    server: &ServerSpec,
    login: &Login,
    rounds: usize,
    note: &dyn Fn(&str),
) -> Result<Rows, DatabaseBenchError> {
    time_of_login(server, login)?;
    note("starting a host with a machine that has a database");
    let host = OwnHost::up(&host_file(server)?)?;
    let grant = Command::DatabaseGrant {
        login: DatabaseLogin {
            of: format!("user:{USER}"),
            database: login.database.to_string(),
            role: login.role.to_string(),
            connections: login.limits.connections,
            idle: login.limits.idle,
            lifetime: login.limits.lifetime,
        },
    };
    host.client()?.carry_out(&grant, |_| {}).map_err(OwnHostError::from)?;
    let ask = |program: &str| {
        let said = host.output(&["allocate", &format!("bench/{program}"), "--user", USER])?;
        let heard = serde_json::from_str::<Heard>(&said);
        heard.map_err(|_| DatabaseBenchError::Program { said: said.clone() })
    };
    let mut all = Measured::default();
    for round in 0..rounds.max(1) {
        note(&format!("round {} of {rounds}", round + 1));
        for _ in 0..CONNECTIONS {
            std::thread::sleep(PAUSE);
            all.direct.push(micros(time_of_login(server, login)?));
        }
        let heard = ask("measure")?;
        all.connects.extend(heard.connects);
        all.trips.extend(heard.trips);
        for _ in 0..CONVERSATIONS {
            let heard = ask("begin")?;
            all.firsts.extend(heard.connects.first());
            all.seconds.extend(heard.connects.get(1));
        }
    }
    Ok(Rows { rows: rows(all) })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn rows(all: Measured) -> Vec<Row> {
    let (direct, trip) = (median(all.direct), median(all.trips));
    let [connect, first, second] = [all.connects, all.firsts, all.seconds].map(median);
    let row = |name: &str, value: f64, reference: f64| Row {
        name: name.to_owned(),
        value,
        unit: "us",
        reference: Some(reference),
        ratio: Some(value / reference),
    };
    vec![
        row("database.connect_added_vs_trip", connect - direct, trip),
        row("database.first_added_vs_trip", first - direct, trip),
        row("database.second_added_vs_trip", second - direct, trip),
        row("database.connect_us", connect, direct),
        row("database.first_us", first, direct),
        row("database.second_us", second, direct),
    ]
}

fn host_file(server: &ServerSpec) -> Result<String, toml::ser::Error> {
    let text = |value: &str| toml::Value::String(value.to_owned());
    let mut database = toml::Table::new();
    database.insert("server".to_owned(), text(&server.address.to_string()));
    for (name, path) in [("credentials", &server.credentials), ("authority", &server.authority)] {
        if let Some(path) = path {
            database.insert(name.to_owned(), text(&path.to_string_lossy()));
        }
    }
    let database = toml::to_string(&database)?;
    let measure = [CLIENT, &MEASURE.replace("COUNT", &CONNECTIONS.to_string())].concat();
    let begin = [CLIENT, BEGIN].concat();
    Ok(format!(
        r#"[main_storage]
size = "128M"

[database]
{database}
[[pool]]
name = "bench"
count = 1
size = "128M"
image = "python"
anybody = true
database = true

[[pool.program]]
tpn = "measure"
run = ["/usr/bin/python3", "-c", '''
{measure}''']

[[pool.program]]
tpn = "begin"
run = ["/usr/bin/python3", "-c", '''
{begin}''']
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_file_has_the_server_and_the_program() {
        let server = ServerSpec {
            address: "/run/postgresql".parse().unwrap(),
            authority: None,
            credentials: Some("/etc/a \"b\"".into()),
        };
        let text = host_file(&server).unwrap();
        let file = host::HostFile::parse(&text).unwrap();
        assert_eq!(file.database, Some(server));
        assert!(file.pools[0].user_database && text.contains("range(20 + 1)"));
    }

    #[test]
    fn what_is_added_stands_beside_a_round_trip() {
        let all = Measured {
            direct: vec![3500.0; 3],
            connects: vec![5000.0; 3],
            trips: vec![1000.0; 9],
            firsts: vec![6500.0],
            seconds: vec![3000.0],
        };
        let rows = rows(all);
        let shown: Vec<_> = rows.iter().map(|row| (row.value, row.ratio)).collect();
        let added = [(1500.0, 1.5), (3000.0, 3.0), (-500.0, -0.5)];
        assert_eq!(shown[..3], added.map(|(value, ratio)| (value, Some(ratio))));
        assert_eq!((rows[3].value, rows[3].reference), (5000.0, Some(3500.0)));
    }
}
