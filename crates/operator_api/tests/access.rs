//! Who may do what, and who is not let in at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use identity::{ApiTokens, Role};
use support::Host;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_local_socket_is_its_owners_who_is_administrator() {
    let host = Host::new();
    let socket = host.directory.path().join("api.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.local().get("/v1/whoami").json()["role"], "administrator");
    assert_eq!(host.local().post("/v1/down?wait=5", "{}").status, 200);
    drop(host.running);
    assert!(!socket.exists(), "a station that ended leaves its socket");
}

#[test]
fn the_network_wants_a_token_that_is_good() {
    let host = Host::new();
    let client = host.loopback();
    let answer = client.get("/v1/status");
    assert_eq!(answer.status, 401);
    assert!(answer.head.to_lowercase().contains("www-authenticate: bearer"), "{answer:?}");
    assert!(answer.head.contains("application/problem+json"), "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("berth api token"));
    assert_eq!(client.get("/metrics").status, 401);
    assert_eq!(client.get("/v1/events").status, 401);
    for token in ["", "x", "berth_00000000_AAAA"] {
        assert_eq!(client.status("GET", "/v1/status", token), 401, "{token}");
    }
    let brief = host.token(Role::Viewer, Duration::from_secs(2));
    let good = host.token(Role::Viewer, HOUR);
    // The file is looked at once a second.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.status("GET", "/v1/status", &good), 200);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(client.status("GET", "/v1/status", &brief), 401);
    let basic = format!("Authorization: Basic {good}");
    assert_eq!(client.ask("GET", "/v1/status", &[&basic], "").status, 401);
    // Revoked, it is good no more.
    let path = host.directory.path().join("tokens");
    let mut tokens = ApiTokens::load(&path).unwrap();
    let id = good.split('_').nth(1).unwrap();
    tokens.revoke(id).unwrap();
    tokens.save(&path).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.status("GET", "/v1/status", &good), 401);
    // A file that others can read lets nobody in.
    let other = host.token(Role::Viewer, HOUR);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.status("GET", "/v1/status", &other), 401);
}

#[test]
fn each_role_may_do_what_it_may_and_no_more() {
    let host = Host::new();
    let client = host.loopback();
    let roles = [Role::Viewer, Role::Operator, Role::Administrator];
    let tokens = roles.map(|role| host.token(role, HOUR));
    host.fake.go();
    for (method, path, allowed) in [
        ("GET", "/v1/status", [true, true, true]),
        ("GET", "/v1/audit", [true, true, true]),
        ("GET", "/v1/operations", [true, true, true]),
        ("GET", "/metrics", [true, true, true]),
        ("POST", "/v1/plans/compact", [true, true, true]),
        ("POST", "/v1/partitions/a/start", [false, true, true]),
        ("POST", "/v1/compact", [false, true, true]),
        ("POST", "/v1/operations/1/cancel", [false, true, true]),
        ("POST", "/v1/partitions", [false, false, true]),
        ("DELETE", "/v1/partitions/a", [false, false, true]),
        ("POST", "/v1/down", [false, false, true]),
    ] {
        for (token, allowed) in tokens.iter().zip(allowed) {
            let status = client.status(method, path, token);
            assert_eq!(status != 403, allowed, "{method} {path}: {status}");
            assert_ne!(status, 401);
        }
    }
}

#[test]
fn a_link_lets_one_browser_in_and_no_second_one() {
    let host = Host::new();
    let link = host.link(Role::Operator);
    let client = host.loopback();
    let key = link.split_once("#key=").unwrap().1;
    assert_eq!(client.status("GET", "/v1/status", key), 401, "a key is no token");
    let session = client.post("/v1/session", &format!("{{\"key\":\"{key}\"}}")).json();
    let token = session["token"].as_str().unwrap();
    assert_eq!(session["role"], "operator");
    assert_eq!(client.status("GET", "/v1/status", token), 200);
    assert_eq!(client.status("POST", "/v1/down", token), 403);
    assert_eq!(client.post("/v1/session", &format!("{{\"key\":\"{key}\"}}")).status, 401);
}

#[test]
fn what_pages_of_others_send_is_refused() {
    let host = Host::new();
    let host_file_name = Host::with(|settings| settings.names.push("berth.example".to_owned()));
    for client in [host.local(), host.loopback()] {
        let own = format!("Origin: http://{}", client.host());
        let token = format!("Authorization: Bearer {}", host.token(Role::Administrator, HOUR));
        std::thread::sleep(Duration::from_millis(1100));
        let post = |header: &str| client.ask("POST", "/v1/compact", &[header, &token], "{}").status;
        // Begun, and perhaps over already.
        assert!(matches!(post(&own), 200 | 202));
        for foreign in [
            "Origin: https://evil.example",
            "Origin: null",
            "Origin: http://localhost:1",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Host: rebound.example",
        ] {
            assert_eq!(post(foreign), 403, "{foreign}");
        }
        let answer = client.ask("OPTIONS", "/v1/compact", &["Origin: https://evil.example"], "");
        assert!(!answer.head.to_lowercase().contains("access-control"), "{answer:?}");
    }
    let named = host_file_name.local();
    assert_eq!(named.ask("GET", "/v1/status", &["Host: berth.example"], "").status, 200);
    // Forms are what pages of others can send without being asked.
    let form = ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 2"];
    assert_eq!(host.local().ask("POST", "/v1/compact", &form, "").status, 415);
    let plain = ["Content-Type: text/plain", "Content-Length: 2"];
    assert_eq!(host.local().ask("POST", "/v1/compact", &plain, "").status, 415);
}

#[test]
fn the_console_is_public_and_runs_nothing_but_itself() {
    let host = Host::new();
    let client = host.loopback();
    let page = client.get("/");
    assert_eq!(page.status, 200);
    let head = page.head.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    assert!(!head.contains("unsafe"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    // No script or style in the page itself, which the policy would not allow.
    assert!(!page.body.contains("style=") && !page.body.contains("onclick"));
    let named = page.body.split('"').filter(|text| text.starts_with("/console/"));
    let named: Vec<_> = named.collect();
    assert!(named.len() >= 2, "{named:?}");
    let mut paths: Vec<_> = named.into_iter().map(str::to_owned).collect();
    let mut seen = 0;
    while let Some(path) = paths.get(seen).cloned() {
        seen += 1;
        let file = client.get(&path);
        assert_eq!(file.status, 200, "{path}");
        // Names are inserted as text: nothing here makes markup of text.
        for maker in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("] {
            assert!(!file.body.contains(maker), "{maker} in {path}");
        }
        let imports =
            file.body.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        for import in imports.map(|name| format!("/console/{name}")) {
            if !paths.contains(&import) {
                paths.push(import);
            }
        }
    }
    assert!(seen > 10, "{paths:?}");
}

#[test]
fn everybody_gets_the_keys_that_verify_tokens() {
    let keys = r#"{"keys":[{"kty":"OKP"}]}"#;
    let host = Host::with(|settings| settings.jwks = keys.to_owned());
    for client in [host.loopback(), host.local()] {
        let answer = client.get("/.well-known/jwks.json");
        assert_eq!((answer.status, answer.body.as_str()), (200, keys));
        let head = answer.head.to_lowercase();
        assert!(head.contains("content-type: application/jwk-set+json"), "{head}");
        assert!(head.contains("cache-control: public, max-age=300"), "{head}");
        assert_eq!(client.post("/.well-known/jwks.json", "{}").status, 405);
    }
}
