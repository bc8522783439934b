//! A host that only pretends, its station, and clients that speak bare HTTP.
#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::{ApiTokens, Role};
use operator_api::model::{
    AuditEntry, AuditPage, AuditQuery, Command, CompactPlan, DatabaseLogins, Exchange,
    ExchangePlan, FileSpace, FileSpaces, HostState, MovePlan, Outcome, Partition, PartitionState,
    ResizePlan, State,
};
use operator_api::{
    Console, NewSize, Operator, Progress, Refusal, Running, Settings, Station, WayIn, Why, Wish,
};
use serde_json::Value;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn partition(name: &str, origin: u64, size: u64) -> Partition {
    Partition {
        name: name.to_owned(),
        origin: origin * MIB,
        size: size * MIB,
        gap: 0,
        state: PartitionState::Running,
        vcpus: 1,
        engine: "soft".to_owned(),
        image: "minimal".to_owned(),
        ready: true,
        reason: None,
        pool: None,
        change: None,
    }
}

/// A host with the partitions `a` and `b`. Moves wait until they are let go or
/// cancelled.
pub(crate) struct Fake {
    state: Mutex<State>,
    station: Arc<Station>,
    open: Mutex<bool>,
    opened: Condvar,
    /// How often a way into a guest was asked for.
    asked: AtomicUsize,
    /// The guests' ends of consoles that were asked for.
    pub(crate) consoles: Mutex<Vec<UnixStream>>,
}

impl Fake {
    fn new(station: Arc<Station>) -> Self {
        let partitions = vec![partition("a", 0, 128), partition("b", 128, 64)];
        let host = HostState { main_storage: 512 * MIB, unit: MIB, partitions, ..<_>::default() };
        let state = State { host, ..State::default() };
        Self {
            state: Mutex::new(state),
            station,
            open: Mutex::new(false),
            opened: Condvar::new(),
            asked: AtomicUsize::new(0),
            consoles: Mutex::default(),
        }
    }

    pub(crate) fn look(&self) -> State {
        self.state.lock().unwrap().clone()
    }

    /// Lets moves go on.
    pub(crate) fn go(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self, progress: &Progress) {
        let mut open = self.open.lock().unwrap();
        while !*open && !progress.is_cancelled() {
            open = self.opened.wait_timeout(open, Duration::from_millis(10)).unwrap().0;
        }
    }
}

impl Operator for Fake {
    fn refresh(&self) {
        self.station.publish(self.look());
    }

    fn carry_out(&self, command: &Command, progress: &Progress) -> Result<Outcome, Refusal> {
        match command {
            Command::Move { name, to, .. } => {
                progress.copying(1, 2);
                self.wait(progress);
                if progress.is_cancelled() {
                    return Err(Refusal::new(Why::Conflict, "it was cancelled"));
                }
                let mut state = self.state.lock().unwrap();
                let one = state.host.partitions.iter_mut().find(|one| one.name == *name).unwrap();
                let from = std::mem::replace(&mut one.origin, *to);
                let (bytes, pause_us, direction) = (2, 3, "up".to_owned());
                Ok(Outcome::Moved {
                    from,
                    to: *to,
                    bytes,
                    direction,
                    pause_us,
                    copy_bytes_per_second: 4,
                })
            }
            Command::Start { name } => {
                Err(Refusal::new(Why::Conflict, format!("{name:?} is running already")))
            }
            Command::Stop { .. } => panic!("a fault of the host"),
            Command::Create { partition: new } => {
                let mut state = self.state.lock().unwrap();
                state.host.partitions.push(partition(&new.name, 256, new.size / MIB));
                Ok(Outcome::Created { origin: 256 * MIB })
            }
            Command::Expand { .. } => {
                self.wait(progress);
                Err(Refusal { left: Some(2), ..Refusal::new(Why::Conflict, "it was interrupted") })
            }
            _ => Ok(Outcome::Done),
        }
    }

    fn plan_move(&self, _: &str, to: u64) -> Result<MovePlan, Refusal> {
        if to == 0 {
            let refusal = Refusal::new(Why::Conflict, "a is in the way; move it first");
            return Err(Refusal { in_the_way: vec!["a".to_owned()], ..refusal });
        }
        Ok(MovePlan { from: 0, to, bytes: 1, direction: "up".to_owned() })
    }

    fn plan_exchange(&self, _: &Exchange) -> Result<ExchangePlan, Refusal> {
        Ok(ExchangePlan { partitions: Vec::new() })
    }

    fn plan_resize(&self, _: &str, size: NewSize, _: bool) -> Result<ResizePlan, Refusal> {
        let (NewSize::By(to) | NewSize::UpTo(to) | NewSize::DownTo(to) | NewSize::Exactly(to)) =
            size;
        Ok(ResizePlan { from: 0, to, moves: Vec::new() })
    }

    fn way_in(&self, name: &str, wish: &Wish) -> Result<WayIn, Refusal> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if name == "b" {
            return Err(Refusal::new(Why::NotNow, "\"b\" is stopped"));
        }
        if asked == 0 && matches!(wish, Wish::Exec(_)) {
            return Err(Refusal::new(Why::Starting, "\"a\" is still starting"));
        }
        let wish = format!("{wish:?}\n");
        Ok(Box::new(move |mut guest| {
            guest.write_all(wish.as_bytes())?;
            let mut typed = [0; 4];
            guest.read_exact(&mut typed)?;
            guest.write_all(&typed.map(|byte| byte.to_ascii_uppercase()))
        }))
    }

    fn file_spaces(&self, only: Option<&str>) -> Result<FileSpaces, Refusal> {
        let space = |name: &str| FileSpace {
            name: name.to_owned(),
            owner: None,
            most_bytes: 1,
            most_files: 2,
            bytes: only.map(|_| 0),
            files: only.map(|_| 0),
            grants: Vec::new(),
        };
        if only == Some("none") {
            return Err(Refusal::new(Why::Unknown, "there is no space none"));
        }
        Ok(FileSpaces { spaces: vec![space(only.unwrap_or("team"))], more: false })
    }

    fn database_logins(&self) -> Result<DatabaseLogins, Refusal> {
        Ok(DatabaseLogins::default())
    }

    fn plan_compact(&self, _: Option<u64>) -> Result<CompactPlan, Refusal> {
        Err(Refusal::new(Why::Conflict, "nothing is free"))
    }

    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, Refusal> {
        let user = query.q.clone().unwrap_or_default();
        let text = |text: &str| text.to_owned();
        let entry = AuditEntry {
            record: text("refused"),
            user,
            tpn: text("mail"),
            conversation: Some(text("1.1")),
            machine: None,
            pool: None,
            from: None,
            at: 1,
            how: text("not-now"),
        };
        Ok(AuditPage { entries: vec![entry], next: None, damaged: 0 })
    }

    fn console(&self, name: &str) -> Result<Console, Refusal> {
        if name == "b" {
            return Ok(Console::Over(b"one\r\nlast <b>words</b>".to_vec()));
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.consoles.lock().unwrap().push(ours);
        Ok(Console::Live(theirs))
    }
}

/// A station with its fake host.
pub(crate) struct Host {
    pub(crate) fake: Arc<Fake>,
    pub(crate) station: Arc<Station>,
    pub(crate) running: Running,
    pub(crate) directory: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let station = Arc::new(Station::default());
        let fake = Arc::new(Fake::new(Arc::clone(&station)));
        station.publish(fake.look());
        let path = |name: &str| directory.path().join(name);
        let mut settings = Settings::local(path("api.sock"), path("tokens"));
        change(&mut settings);
        let running = Running::start(settings, Arc::clone(&station), Arc::<Fake>::clone(&fake));
        Self { fake, station, running: running.unwrap(), directory }
    }

    /// A client of the local socket.
    pub(crate) fn local(&self) -> Client {
        Client::Unix(self.directory.path().join("api.sock"))
    }

    /// A client of the loopback.
    pub(crate) fn loopback(&self) -> Client {
        let link = self.link(Role::Viewer);
        let address = link.strip_prefix("http://").unwrap().split('/').next().unwrap();
        Client::Tcp(address.to_owned())
    }

    /// A link for a browser.
    pub(crate) fn link(&self, role: Role) -> String {
        let body = format!("{{\"role\":{:?}}}", role.as_str());
        let made = self.local().post("/v1/links", &body);
        made.json()["url"].as_str().unwrap().to_owned()
    }

    /// A token of the file.
    pub(crate) fn token(&self, role: Role, lifetime: Duration) -> String {
        let path = self.directory.path().join("tokens");
        let mut tokens = ApiTokens::load(&path).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let token = tokens.make(role, lifetime, "", now).unwrap();
        tokens.save(&path).unwrap();
        token
    }
}

pub(crate) enum Client {
    Unix(std::path::PathBuf),
    Tcp(String),
}

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Client {
    pub(crate) fn connect(&self) -> Box<dyn Stream> {
        let patience = Some(Duration::from_secs(30));
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(patience).unwrap();
                Box::new(stream)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(patience).unwrap();
                Box::new(stream)
            }
        }
    }

    /// The name that browsers would send.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp(address) => address,
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(self.head(method, path, headers, body.len()).as_bytes()).unwrap();
        // Whoever is refused early may be cut off.
        let _ = stream.write_all(body.as_bytes());
        read(stream)
    }

    /// A request's head that ends the connection.
    pub(crate) fn head(&self, method: &str, path: &str, headers: &[&str], length: usize) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if headers.iter().all(|header| !header.starts_with("Host:")) {
            head += &format!("Host: {}\r\n", self.host());
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        if length > 0 {
            head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        head + "\r\n"
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[], body)
    }

    /// Status of an answer to whoever shows `token`.
    pub(crate) fn status(&self, method: &str, path: &str, token: &str) -> u16 {
        let header = format!("Authorization: Bearer {token}");
        self.ask(method, path, &[&header], "").status
    }

    /// An event stream.
    pub(crate) fn listen(&self, headers: &[&str]) -> Events {
        self.listen_to("/v1/events", headers)
    }

    pub(crate) fn listen_to(&self, path: &str, headers: &[&str]) -> Events {
        let mut stream = self.connect();
        stream.write_all(self.head("GET", path, headers, 0).as_bytes()).unwrap();
        Events::of(stream)
    }
}

pub(crate) fn read(mut stream: Box<dyn Stream>) -> Answer {
    let mut text = Vec::new();
    // What is broken off is still an answer.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) struct Events {
    lines: BufReader<Box<dyn Stream>>,
}

/// Name, id and data of an event.
pub(crate) type Heard = (String, String, Value);

impl Events {
    /// Those that are the answer to what was asked on `stream`.
    pub(crate) fn of(stream: Box<dyn Stream>) -> Self {
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while line.trim_end() != "" || line.is_empty() {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "no stream");
        }
        Self { lines }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Heard> {
        let (mut name, mut id, mut data) = (String::new(), String::new(), None);
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // Sizes of chunks are no fields.
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("event", text)) => name = text.to_owned(),
                Some(("id", text)) => id = text.to_owned(),
                Some(("data", text)) => data = serde_json::from_str(text).ok(),
                _ => {}
            }
            if line.is_empty() {
                if let Some(data) = data.take() {
                    return Some((name, id, data));
                }
            }
        }
    }

    /// The next event of this name.
    pub(crate) fn until(&mut self, name: &str) -> Heard {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "no {name}");
            match self.next() {
                Some(heard) if heard.0 == name => return heard,
                Some(_) => {}
                None => panic!("the stream ended before {name}"),
            }
        }
    }
}
