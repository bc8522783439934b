//! Clients that show a certificate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use operator_api::{Role, Tcp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{Answer, Host, read};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client's certificate and key.
struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    fn new(by: &Authority, name: &str, years: (i32, i32)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, by).unwrap().der().clone();
        Self { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    fn fingerprint(&self) -> String {
        let read = identity::ClientCertificate::read(&self.certificate).unwrap();
        read.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A host that asks for certificates, and whom it knows.
struct Asking {
    host: Host,
    authority: Authority,
    directory: tempfile::TempDir,
}

impl Asking {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority("The operators' authority");
        let ca = directory.path().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let names = ["localhost".to_owned()];
        let tls = gateway::tls::load_or_make_as(directory.path(), "api", &names, Some(&ca));
        let clients = directory.path().join("clients.toml");
        let host = Host::with(|settings| {
            settings.tcp = Some(Tcp { address: "127.0.0.1:0".parse().unwrap(), tls: tls.unwrap() });
            settings.clients = Some(clients);
        });
        Self { host, authority, directory }
    }

    fn knows(&self, text: &str) {
        let path = self.directory.path().join("clients.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // What was read before is believed for a second.
        std::thread::sleep(Duration::from_millis(1100));
    }

    /// The answer to whoever shows this; status 0 if the handshake failed.
    fn ask(&self, shown: Option<&Shown>, path: &str, headers: &[&str]) -> Answer {
        let connect = connect(&self.directory.path().join("api.crt"), shown);
        let stream = TcpStream::connect(self.host.running.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut stream = rustls::StreamOwned::new(connect, stream);
        let head = self.host.local().head("GET", path, headers, 0);
        // Who is refused may not get that far.
        let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
        read(Box::new(stream))
    }

    fn role(&self, shown: &Shown) -> String {
        let answer = self.ask(Some(shown), "/v1/whoami", &[]);
        if answer.status == 200 {
            answer.json()["role"].as_str().unwrap().to_owned()
        } else {
            answer.status.to_string()
        }
    }
}

fn connect(trusted: &Path, shown: Option<&Shown>) -> rustls::ClientConnection {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(Shown { certificate, key }) => {
            config.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
        }
    };
    let name = "localhost".try_into().unwrap();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap()
}

const GOOD: (i32, i32) = (2020, 4000);

#[test]
fn a_certificate_gives_the_role_that_the_file_says_and_none_when_it_is_struck_out() {
    let asking = Asking::new();
    let grafana = Shown::new(&asking.authority, "grafana", GOOD);
    let deploy = Shown::new(&asking.authority, "deploy", GOOD);
    // Genuine, but nobody: what is missing is said.
    let answer = asking.ask(Some(&grafana), "/v1/status", &[]);
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("clients") && answer.body.contains("grafana"), "{answer:?}");

    let pinned = deploy.fingerprint();
    let both = format!(
        "[[client]]\ncommon_name = \"grafana\"\nrole = \"viewer\"\n\
         [[client]]\nfingerprint = \"{pinned}\"\nrole = \"administrator\"\n"
    );
    asking.knows(&both);
    assert_eq!(asking.role(&grafana), "viewer");
    assert_eq!(asking.role(&deploy), "administrator");
    // One more of that name is the same client; one more of the other's is not.
    assert_eq!(asking.role(&Shown::new(&asking.authority, "grafana", GOOD)), "viewer");
    assert_eq!(asking.role(&Shown::new(&asking.authority, "deploy", GOOD)), "401");
    assert_eq!(asking.ask(Some(&grafana), "/v1/partitions/a/console", &[]).status, 403);

    // A token beside it counts, and without either nobody is let in.
    let operator = asking.host.token(Role::Operator, Duration::from_secs(60));
    let bearer = format!("Authorization: Bearer {operator}");
    let answer = asking.ask(Some(&grafana), "/v1/whoami", &[&bearer]);
    assert_eq!(answer.json()["role"], "operator");
    assert_eq!(asking.ask(None, "/v1/whoami", &[&bearer]).status, 200);
    assert_eq!(asking.ask(None, "/v1/whoami", &[]).status, 401);

    asking.knows("[[client]]\ncommon_name = \"grafana\"\nrole = \"viewer\"\n");
    assert_eq!(asking.role(&deploy), "401");
    assert_eq!(asking.role(&grafana), "viewer");
    asking.knows("role = \"nonsense\"");
    assert_eq!(asking.role(&grafana), "401");
}

#[test]
fn certificates_of_others_and_those_that_have_expired_are_refused() {
    let asking = Asking::new();
    asking.knows("[[client]]\ncommon_name = \"grafana\"\nrole = \"viewer\"\n");
    let good = Shown::new(&asking.authority, "grafana", GOOD);
    assert_eq!(asking.role(&good), "viewer");
    let others = Shown::new(&authority("Somebody else"), "grafana", GOOD);
    // One that only calls itself the same.
    let namesake = Shown::new(&authority("The operators' authority"), "grafana", GOOD);
    let expired = Shown::new(&asking.authority, "grafana", (2020, 2021));
    let early = Shown::new(&asking.authority, "grafana", (3000, 4000));
    for shown in [&others, &namesake, &expired, &early] {
        assert_eq!(asking.role(shown), "0");
    }
    assert_eq!(asking.role(&good), "viewer", "others are served all the same");
}
