//! The command line at a host elsewhere, known by a client's certificate.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
};
use support::Host;

type Authority = CertifiedIssuer<'static, KeyPair>;

const PARTITION: &str = r#"
[main_storage]
size = "256M"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"
autostart = false
"#;

const CLIENTS: &str = r#"
[[client]]
common_name = "watcher"
role = "viewer"

[[client]]
common_name = "mover"
role = "operator"
"#;

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority() -> Authority {
    let mut params = named("The operators' authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes NAME.crt and NAME.key.
fn client(by: &Authority, directory: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let certificate = named(name).signed_by(&key, by).unwrap();
    fs::write(directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
    fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn guest_host_knows_the_command_line_by_its_certificate() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let api = format!(
        "\n[api]\nlisten = \"127.0.0.1:{port}\"\nclient_authorities = \"ca.crt\"\nclients = \
         \"clients.toml\"\n{PARTITION}"
    );
    let ours = authority();
    let host = Host::prepare(&api, &[("ca.crt", &ours.pem()), ("clients.toml", CLIENTS)]);
    let owners = fs::Permissions::from_mode(0o600);
    fs::set_permissions(host.path("clients.toml"), owners).unwrap();
    let directory = host.path("");
    for name in ["watcher", "mover", "stranger"] {
        client(&ours, &directory, name);
    }
    client(&authority(), &directory, "forger");
    host.comes_back();

    let file = |name: &str, kind: &str| directory.join(format!("{name}.{kind}"));
    let elsewhere = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command.args(["--host", &format!("https://127.0.0.1:{port}"), "--ca"]);
        command.arg(directory.join("state/api.crt")).stdin(Stdio::null());
        command.env_remove("BERTH_STATE_DIR");
        command
    };
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let run = |name: &str, arguments: &[&str]| {
        let mut command = elsewhere();
        command.arg("--certificate").arg(file(name, "crt")).arg("--key").arg(file(name, "key"));
        said(command.args(arguments))
    };
    // By options.
    let (status, text) = run("watcher", &["status"]);
    assert!(status == Some(0) && text.contains("112M"), "{text}");
    let (status, text) = run("watcher", &["move", "a", "--to", "64M"]);
    assert!(status == Some(1) && text.contains("needs the role operator"), "{text}");
    let (status, text) = run("mover", &["move", "a", "--to", "64M"]);
    assert!(status == Some(0) && text.contains("moved from 0 to 64M"), "{text}");
    let (status, text) = run("mover", &["down"]);
    assert!(status == Some(1) && text.contains("needs the role administrator"), "{text}");
    // By the environment.
    let mut command = elsewhere();
    command.env("BERTH_CERTIFICATE", file("mover", "crt")).env("BERTH_KEY", file("mover", "key"));
    let (status, text) = said(command.args(["move", "a", "--to", "128M"]));
    assert!(status == Some(0) && text.contains("moved from 64M to 128M"), "{text}");
    // Whom nobody knows, or another authority, is not let in.
    let (status, text) = run("stranger", &["status"]);
    assert!(status == Some(1) && text.contains("stranger"), "{text}");
    let (status, text) = run("forger", &["status"]);
    assert!(status == Some(1) && text.contains("client_authorities"), "{text}");
    // What was not given right is said before anybody is asked.
    let (status, text) =
        said(elsewhere().arg("--certificate").arg(file("mover", "crt")).arg("status"));
    assert!(status.is_some_and(|code| code != 0) && text.contains("--key"), "{text}");
    let mut command = elsewhere();
    command.arg("--certificate").arg(file("mover", "crt")).arg("--key").arg(file("watcher", "key"));
    let (status, text) = said(command.arg("status"));
    assert!(status == Some(1) && text.contains("watcher.key"), "{text}");
    let (_, after) = host.json(&["status"]);
    assert!(after.to_string().contains("134217728"), "{after}");
}
