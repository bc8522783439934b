//! Guests' consoles in pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use operator_api::Role;
use serde_json::{Value, json};
use support::{Client, Events, Host};

const CONSOLE: &str = "/v1/partitions/a/console";
const KEYS: &str = "/v1/partitions/a/console/keys";

/// What a page shows, kept up by what it hears.
struct Page {
    events: Events,
    lines: Vec<String>,
    last: Value,
}

impl Page {
    fn open(client: &Client, path: &str) -> Self {
        let events = client.listen_to(path, &[]);
        let mut page = Self { events, lines: Vec::new(), last: Value::Null };
        page.hear();
        page
    }

    fn hear(&mut self) -> bool {
        let Some((name, _, shown)) = self.events.next() else { return false };
        assert_eq!(name, "screen");
        self.lines
            .resize(usize::try_from(shown["lines"].as_u64().unwrap()).unwrap(), String::new());
        for row in shown["rows"].as_array().unwrap() {
            let runs = row["runs"].as_array().unwrap().iter();
            let text = runs.map(|run| run["text"].as_str().unwrap()).collect();
            self.lines[usize::try_from(row["line"].as_u64().unwrap()).unwrap()] = text;
        }
        self.last = shown;
        true
    }

    /// Hears until a line is this.
    fn until(&mut self, line: &str) {
        while !self.lines.iter().any(|shown| shown == line) {
            assert!(self.hear(), "{:?}", self.lines);
        }
    }
}

fn guest(host: &Host) -> UnixStream {
    let mut consoles = host.fake.consoles.lock().unwrap();
    assert_eq!(consoles.len(), 1, "one connection for all who look");
    consoles.pop().unwrap()
}

fn keys(client: &Client, text: &str) -> u16 {
    client.post(KEYS, &json!({ "text": text }).to_string()).status
}

#[test]
fn two_pages_see_one_console_and_type_into_it() {
    let host = Host::new();
    let client = host.local();
    let mut first = Page::open(&client, CONSOLE);
    assert_eq!(first.lines.len(), 24);
    let mut second = Page::open(&client, CONSOLE);
    let mut guest = guest(&host);
    guest.write_all(b"login: <b>\x1b[31mred\x1b[0m").unwrap();
    for page in [&mut first, &mut second] {
        page.until("login: <b>red");
    }
    assert_eq!(first.last["cursor"], json!([13, 0]));
    assert_eq!(keys(&client, "ro"), 204);
    assert_eq!(keys(&client, "ot\r\u{3}ü"), 204);
    let mut typed = [0; 8];
    guest.read_exact(&mut typed).unwrap();
    assert_eq!(typed, "root\r\u{3}ü".as_bytes());
    // Who comes later sees the same; only what changes is sent.
    let mut third = Page::open(&client, CONSOLE);
    third.until("login: <b>red");
    guest.write_all(b"\r\nPassword: ").unwrap();
    first.until("Password:");
    assert_eq!(first.last["rows"].as_array().unwrap().len(), 1);

    // When the guest is gone, so are the streams, and a new one is asked for.
    drop(guest);
    while first.hear() {}
    assert_eq!(first.last["over"], true);
    Page::open(&client, CONSOLE);
    assert_eq!(host.fake.consoles.lock().unwrap().len(), 1);
}

#[test]
fn of_a_guest_that_is_gone_the_last_words_are_shown() {
    let host = Host::new();
    let client = host.local();
    let mut page = Page::open(&client, "/v1/partitions/b/console");
    page.until("last <b>words</b>");
    assert_eq!((&page.last["over"], &page.last["cursor"]), (&json!(true), &Value::Null));
    assert!(!page.hear());
    let typed = client.post("/v1/partitions/b/console/keys", r#"{"text": "x"}"#);
    assert_eq!(typed.status, 409, "{typed:?}");
    assert_eq!(client.get("/v1/partitions/c/console").status, 404);
}

#[test]
fn only_operators_use_consoles_and_only_while_their_token_is_good() {
    let host = Host::new();
    let client = host.loopback();
    let viewer = host.token(Role::Viewer, Duration::from_secs(60));
    assert_eq!(client.status("GET", CONSOLE, &viewer), 403);
    assert_eq!(client.status("POST", KEYS, &viewer), 403);
    assert_eq!(client.get(CONSOLE).status, 401);

    let operator = host.token(Role::Operator, Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(1100));
    let mut events = client.listen_to(CONSOLE, &[&format!("Authorization: Bearer {operator}")]);
    assert!(events.next().is_some());
    let mut guest = guest(&host);
    std::fs::write(host.directory.path().join("tokens"), "").unwrap();
    // Also while there is always something to say.
    guest.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let talk = std::thread::spawn(move || {
        while guest.write_all(b"tick\r\n").is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    while events.next().is_some() {
        assert!(Instant::now() < deadline, "still let in");
    }
    // Nobody looks any more: the guest's machine is let go.
    talk.join().unwrap();
    assert!(Instant::now() < deadline);
}

#[test]
fn neither_a_flood_nor_a_slow_page_nor_long_keys_hold_anybody_up() {
    let host = Host::new();
    let client = host.local();
    assert_eq!(keys(&client, &"x".repeat(4097)), 400);
    assert_eq!(client.post(KEYS, r#"{"text": 1}"#).status, 422);
    host.fake.consoles.lock().unwrap().clear();

    let slow = client.listen_to(CONSOLE, &[]);
    let mut quick = Page::open(&client, CONSOLE);
    let mut guest = guest(&host);
    let flood = std::thread::spawn(move || {
        for line in 0..20_000 {
            guest
                .write_all(format!("\x1b[{}mline {line}\x1b[65535b\r\n", 30 + line % 8).as_bytes())
                .unwrap();
        }
        guest.write_all(b"\x1bcdone\r\n").unwrap();
        guest
    });
    // Others are served meanwhile, and the last picture is right.
    for _ in 0..20 {
        assert_eq!(client.get("/v1/status").status, 200);
    }
    quick.until("done");
    let mut guest = flood.join().unwrap();
    drop(slow);
    // A guest that reads nothing is typed to no more than fits.
    guest.set_nonblocking(true).unwrap();
    let text = "y".repeat(4096);
    let mut taken = 0;
    while keys(&client, &text) == 204 {
        taken += 1;
        assert!(taken < 1000, "what is typed is kept without end");
    }
    assert!(guest.read(&mut [0; 10]).is_ok());
}
