//! A server that is reached by TLS, which a guest notices nothing of.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::sync::Arc;

use database_manager::{Broker, Limits, ServerSpec};
use support::{Bench, ask, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// A server's TLS in front of a PostgreSQL that has none.
async fn tls_in_front(
    socket: std::path::PathBuf,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
) -> u16 {
    let chain = vec![certificate.cert.der().clone()];
    let key = certificate.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                client.read_exact(&mut request).await.unwrap();
                client.write_all(b"S").await.unwrap();
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = UnixStream::connect(socket).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_by_its_certificate_only() {
    let mut bench = Bench::new();
    let (mine, other) = (named("localhost"), named("localhost"));
    let (authority, others) = (bench.dir.path().join("ca.pem"), bench.dir.path().join("other.pem"));
    fs::write(&authority, mine.cert.pem()).unwrap();
    fs::write(&others, other.cert.pem()).unwrap();
    let address = bench.server.address();
    let (directory, _) = address.split_once(':').unwrap();
    let socket = std::path::Path::new(directory).join(".s.PGSQL.5432");
    let port = tls_in_front(socket, mine).await;
    let spec = |host: &str, authority: &std::path::Path| ServerSpec {
        address: format!("{host}:{port}").parse().unwrap(),
        authority: Some(authority.to_owned()),
        credentials: Some(bench.dir.path().join("passwords")),
    };
    let specs =
        [spec("localhost", &authority), spec("localhost", &others), spec("127.0.0.1", &authority)];
    let table = bench.dir.path().join("other-logins.json");
    let mut connected = Vec::new();
    for spec in specs {
        let broker = Arc::new(Broker::open(spec, &table).unwrap());
        bench.replace(broker);
        bench.grant("user:alice", "alice", Limits::default());
        let client = connect(&bench.machine("m-01", "alice", &[])).await;
        connected.push(match client {
            Ok(client) => ask(&client, "SELECT current_user").await.unwrap(),
            Err(error) => Some(support::code(&error).to_owned()),
        });
    }
    let connected: Vec<_> = connected.iter().map(|one| one.as_deref().unwrap()).collect();
    assert_eq!(connected, ["alice", "57P03", "57P03"]);
}

fn named(name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

#[test]
fn a_server_far_away_needs_tls() {
    let dir = tempfile::tempdir().unwrap();
    let address = "db.example".parse().unwrap();
    let spec = ServerSpec { address, authority: None, credentials: None };
    let refused = Broker::open(spec, &dir.path().join("logins.json"));
    assert!(refused.err().unwrap().to_string().contains("authority"));
}
