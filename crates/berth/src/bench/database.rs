//! `berth bench database`: what the broker adds to a connection of PostgreSQL's.
//!
//! A host of its own has a pool of one machine, whose user has a login at a server that
//! is there already. A program in the machine connects by the plainest client there
//! can be, and asks nothing; the same login connects to the server directly, from the
//! host, in between.

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
/// Says how long connections took, and empty round trips on them, in microseconds.
/// The first of either is not counted: Python looks up what it calls.
const MEASURE: &str = r#"import json, socket, struct, time
HELLO = struct.pack("!ii", 9, 196608) + bytes(1)
EMPTY = b"Q" + struct.pack("!i", 5) + bytes(1)
READY = b"Z" + struct.pack("!i", 5)
def trip(stream, question):
    stream.sendall(question)
    heard = b""
    while heard[-6:-1] != READY:
        piece = stream.recv(65536)
        if not piece or heard[:1] == b"E":
            raise SystemExit(repr(heard))
        heard += piece
connects, trips = [], []
for _ in range(COUNT + 1):
    # What the last one left behind is not this one's.
    time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as stream:
        begun = time.perf_counter()
        stream.connect("/run/postgresql/.s.PGSQL.5432")
        trip(stream, HELLO)
        connects.append((time.perf_counter() - begun) * 1e6)
        for _ in range(5):
            begun = time.perf_counter()
            trip(stream, EMPTY)
            trips.append((time.perf_counter() - begun) * 1e6)
        stream.sendall(b"X" + struct.pack("!i", 4))
print(json.dumps({"connects": connects[1:], "trips": trips[1:]}))
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
    let (mut all, mut direct) = (Heard::default(), Vec::new());
    for round in 0..rounds.max(1) {
        note(&format!("round {} of {rounds}", round + 1));
        for _ in 0..CONNECTIONS {
            std::thread::sleep(PAUSE);
            direct.push(micros(time_of_login(server, login)?));
        }
        let said = host.output(&["allocate", "bench/measure", "--user", USER])?;
        let heard: Heard = serde_json::from_str(&said)
            .map_err(|_| DatabaseBenchError::Program { said: said.clone() })?;
        all.connects.extend(heard.connects);
        all.trips.extend(heard.trips);
    }
    Ok(Rows { rows: rows(&all, direct) })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn rows(heard: &Heard, direct: Vec<f64>) -> Vec<Row> {
    let (connect, trip) = (median(heard.connects.clone()), median(heard.trips.clone()));
    let direct = median(direct);
    let row = |name: &str, value: f64, reference: f64| Row {
        name: name.to_owned(),
        value,
        unit: "us",
        reference: Some(reference),
        ratio: Some(value / reference),
    };
    vec![
        row("database.connect_added_vs_trip", connect - direct, trip),
        row("database.connect_us", connect, direct),
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
    let measure = MEASURE.replace("COUNT", &CONNECTIONS.to_string());
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
        let heard = Heard { connects: vec![5000.0; 3], trips: vec![1000.0; 9] };
        let [added, whole] = &rows(&heard, vec![3500.0; 3])[..] else { panic!("two rows") };
        assert_eq!((added.value, added.ratio), (1500.0, Some(1.5)));
        assert_eq!((whole.value, whole.reference), (5000.0, Some(3500.0)));
    }
}
