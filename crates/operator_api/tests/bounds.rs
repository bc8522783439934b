//! What clients can make the station hold is bounded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::Role;
use operator_api::Tcp;
use support::{Host, read};

#[test]
fn a_body_that_is_too_long_is_refused_before_it_comes() {
    let host = Host::new();
    let client = host.local();
    let started = Instant::now();
    let mut stream = client.connect();
    let head = client.head("POST", "/v1/compact", &[], 1 << 30);
    stream.write_all(head.as_bytes()).unwrap();
    let answer = read(stream);
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(2));

    // One that does not say how long it is.
    let mut stream = client.connect();
    let head = "POST /v1/compact HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    let mut sent = 0;
    while sent < 1 << 30 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 8 << 20, "{sent} bytes were taken");
    // At the limit it is read, and then judged.
    let body = format!("{{\"free\":1{}}}", " ".repeat((64 << 10) - 10));
    assert_eq!(body.len(), 64 << 10);
    assert!(matches!(client.post("/v1/compact", &body).status, 200 | 202));
}

#[test]
fn heads_are_bounded_in_size() {
    let host = Host::new();
    let client = host.local();
    let many: Vec<_> = (0..80).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(client.ask("GET", "/v1/status", &many, "").status, 431);
    let long = format!("X: {}", "y".repeat(64 << 10));
    let mut stream = client.connect();
    // It may be cut off while it is still being sent.
    let _ = stream.write_all(client.head("GET", "/v1/status", &[&long], 0).as_bytes());
    assert!([0, 431].contains(&read(stream).status));
    assert_eq!(client.get("/v1/status").status, 200);
}

#[test]
fn who_says_nothing_does_not_keep_others_out() {
    let host = Host::with(|settings| settings.connections = 4);
    let client = host.local();
    let silent: Vec<_> = (0..4).map(|_| client.connect()).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut fifth = client.connect();
    let mut byte = [0];
    // It is closed at once.
    assert_eq!(fifth.read(&mut byte).unwrap_or(0), 0);
    drop(silent);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(client.get("/v1/status").status, 200);
}

#[test]
fn the_network_is_tls() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned()];
    let tls = gateway::tls::load_or_make_as(directory.path(), "api", &names, None).unwrap();
    let host = Host::with(|settings| {
        settings.tcp = Some(Tcp { address: ([127, 0, 0, 1], 0).into(), tls });
    });
    let address = host.running.address().unwrap();
    let token = host.token(Role::Viewer, Duration::from_secs(60));

    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(directory.path().join("api.crt")).unwrap();
    for certificate in rustls_pem(&pem) {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".to_owned().try_into().unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let mut stream = rustls::StreamOwned::new(client, stream);
    let request = format!(
        "GET /v1/whoami HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read(Box::new(stream));
    assert_eq!((answer.status, &answer.json()["role"]), (200, &"viewer".into()));

    // Plain HTTP gets no answer of ours.
    let plain = support::Client::Tcp(address.to_string());
    assert_eq!(plain.get("/v1/status").status, 0);
}

fn rustls_pem(pem: &[u8]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect()
}
