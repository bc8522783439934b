//! A server that is not Berth's verifies who a machine is, by the host's keys. The
//! server is the documentation's example.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../examples/identity/service.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "it is a program of its own")]
mod service;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{NewToken, Signer};
use serde_json::Value;
use service_pool::UserId;
use support::Host;
use support::pool::{Conversation, all_free};

const POOL: &str = r#"
[main_storage]
size = "256M"

[[pool]]
name = "serve"
count = 1
size = "112M"
image = "minimal"
anybody = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
"#;

/// The service, with the keys of this host.
fn serve(host: &Host) -> SocketAddr {
    let socket = host.path("state/api.sock");
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            service::serve(listener, socket).await.unwrap();
        });
    });
    address.recv().unwrap()
}

/// Status and body of an answer to whoever shows `token`.
fn ask(address: SocketAddr, method: &str, token: &str, note: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} /note HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{note}",
        note.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

/// The token that a program of the machine gets for this audience.
fn token(machine: &mut Conversation, audience: &str) -> String {
    let line = format!("wget -qO- 'http://127.0.0.1/v1/token?audience={audience}'; echo");
    let answer: Value = serde_json::from_str(&machine.ask(&line)).unwrap();
    answer["token"].as_str().unwrap().to_owned()
}

#[test]
fn guest_identity_is_verified_by_the_keys_of_its_host() {
    let host = Host::up(POOL);
    all_free(&host);
    let address = serve(&host);
    let mut alice = Conversation::begin(&host, "alice");
    let good = token(&mut alice, "notes");
    let kept = ask(address, "POST", &good, "milk");
    assert_eq!(kept, (200, "kept for alice from serve-00\n".to_owned()));
    assert_eq!(ask(address, "GET", &good, ""), (200, "milk".to_owned()));

    // For another, forged, by another key, and out of date.
    let refused = |token: &str, what: &str| {
        assert_eq!(ask(address, "GET", token, ""), (401, String::new()), "{what}");
    };
    refused(&token(&mut alice, "letters"), "for another audience");
    assert_eq!(alice.end(), 0);
    let (claims, signature) = good.rsplit_once('.').unwrap();
    let changed = if signature.starts_with('A') { "B" } else { "A" };
    refused(&format!("{claims}.{changed}{}", &signature[1..]), "another signature");
    refused(&format!("{claims}."), "no signature");
    refused("", "no token");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signed = |signer: &Signer, at: u64| {
        let new = NewToken {
            user: UserId::new("alice").unwrap(),
            groups: vec![],
            audience: "notes".to_owned(),
            lifetime: Duration::from_secs(300),
            machine: None,
        };
        signer.sign(new, at).unwrap()
    };
    let own = Signer::open(&host.path("state/token.key"), "berth").unwrap();
    assert_eq!(ask(address, "GET", &signed(&own, now), ""), (200, "milk".to_owned()));
    refused(&signed(&own, now - 1000), "it has expired");
    refused(&signed(&own, now + 1000), "its time has not come");
    let other_maker = Signer::open(&host.path("state/token.key"), "somebody").unwrap();
    refused(&signed(&other_maker, now), "another issuer");
    let forger = Signer::open(&host.path("forged.key"), "berth").unwrap();
    refused(&signed(&forger, now), "a key that is not the host's");

    // The next user of the same machine finds nothing of hers.
    all_free(&host);
    let mut bob = Conversation::begin(&host, "bob");
    assert_eq!(ask(address, "GET", &token(&mut bob, "notes"), ""), (200, String::new()));
    assert_eq!(bob.end(), 0);
}
