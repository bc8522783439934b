//! The console's page in a real browser, with real guests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../src/browser.rs"]
#[allow(dead_code, reason = "the program uses the rest of it")]
mod browser;
#[path = "support/page.rs"]
mod page;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use page::{DESK, Operator, PHONE};
use serde_json::json;
use support::Host;
use support::pool::{Conversation, all_free};

const MIB: u64 = 1 << 20;
const ALL: f64 = 600.0;

const THREE: &str = r#"
[main_storage]
size = "600M"

[[partition]]
name = "mail"
origin = "0"
size = "112M"
image = "minimal"

[[partition]]
name = "web"
origin = "128M"
size = "112M"
image = "minimal"

[[partition]]
name = "ci"
origin = "300M"
size = "80M"
image = "minimal"
autostart = false
"#;

fn origin(host: &Host, name: &str) -> u64 {
    host.partition(name)["origin"].as_u64().unwrap() / MIB
}

#[test]
fn guest_page_moves_refuses_and_exchanges_by_drop() {
    let host = Host::up(THREE);
    let mut operator = Operator::follow(&host, "administrator");
    host.exec("web", &["sh", "-c", "echo kept > /run/kept"]);

    // A running guest is moved.
    let at = operator.pull(150.0, 450.0, ALL);
    assert!(operator.hint().contains("nobody is in the way"), "{}", operator.hint());
    operator.picture("pulling", false);
    operator.drop_at(at);
    assert!(operator.dialog().contains("Move web"), "{}", operator.dialog());
    operator.press("Move");
    operator.no_dialog();
    operator.wait("document.querySelector('#operations li.succeeded')");
    let there = origin(&host, "web");
    assert!((420..=435).contains(&there), "{there}");
    assert_eq!(host.exec("web", &["cat", "/run/kept"]), "kept\n");
    let row = "[...document.querySelectorAll('#table tr')].find((one) => one.innerText.includes('web')).innerText";
    operator.wait(&format!("({row}).includes('{there}M')"));

    // Back to where nothing but "ci" is in the way: refused, and it says by whom.
    let at = operator.pull(5.0, 256.0, ALL);
    let hint = operator.hint();
    assert!(hint.contains("ci in the way"), "{hint}");
    operator.picture("in-the-way", false);
    operator.drop_at(at);
    let refused = operator.dialog();
    assert!(refused.contains("ci"), "{refused}");
    assert_eq!(operator.ask("!!document.querySelector('dialog button[type=submit]')"), false);
    operator.press("Close");
    operator.no_dialog();
    assert_eq!(origin(&host, "mail"), 0);

    // Onto another one: they change places.
    let at = operator.pull(50.0, f64::from(u32::try_from(there).unwrap()) + 50.0, ALL);
    assert!(operator.hint().contains("change places"), "{}", operator.hint());
    operator.drop_at(at);
    assert!(operator.dialog().contains("Exchange mail and web"), "{}", operator.dialog());
    operator.picture("exchanging", false);
    operator.press("Exchange");
    operator.no_dialog();
    operator.wait("document.querySelectorAll('#operations li.succeeded').length === 2");
    assert_eq!((origin(&host, "web"), origin(&host, "mail")), (0, there));
    assert_eq!(host.exec("web", &["cat", "/run/kept"]), "kept\n");

    // Whoever only looks can pull nothing.
    let page = operator.page.clone();
    let viewer = operator.another(&host, "viewer");
    operator.go(&viewer);
    operator.pull(50.0, 200.0, ALL);
    assert_eq!(operator.hint(), "");
    assert_eq!(operator.ask("document.getElementById('create').hidden"), true);
    operator.go(&page);

    // By day, by night, and in a hand.
    operator.wait("!document.querySelector('#said.shown')");
    operator.picture("console-light", false);
    operator.browser.dress(&operator.page.clone(), DESK, true).unwrap();
    operator.picture("console-dark", false);
    let shade = operator.ask("getComputedStyle(document.documentElement).backgroundColor");
    assert_eq!(shade, json!("rgb(16, 21, 20)"));
    operator.browser.dress(&operator.page.clone(), PHONE, false).unwrap();
    operator.fits();
    operator.picture("console-phone", true);
    operator.is_content();
}

const POOL: &str = r#"
[main_storage]
size = "700M"

[[pool]]
name = "serve"
count = 4
size = "112M"
image = "minimal"
anybody = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh", "-e"]
"#;

#[test]
fn guest_page_shows_who_sits_in_a_pool() {
    let host = Host::up(POOL);
    all_free(&host);
    let mut operator = Operator::follow(&host, "viewer");
    let seats = |state: &str| format!("document.querySelectorAll('.seat.{state}').length");
    operator.wait(&format!("{} === 4", seats("free")));
    let mut talks: Vec<_> = ["alice", "bob", "carol"]
        .into_iter()
        .map(|user| Conversation::begin(&host, user))
        .collect();
    for talk in &mut talks {
        assert_eq!(talk.ask("echo here"), "here");
    }
    operator.wait(&format!("{} === 3 && {} === 1", seats("in_use"), seats("free")));
    let shown = operator.ask("document.getElementById('seats').innerText");
    for user in ["alice", "bob", "carol"] {
        assert!(shown.as_str().unwrap().contains(user), "{shown}");
    }
    operator.picture("pool-in-use", false);
    // Seats are cleaned and free again, and the log says who sat there.
    for talk in talks {
        assert_eq!(talk.end(), 0);
    }
    for user in ["dave", "erin", "frank", "dave", "erin", "frank"] {
        let mut talk = Conversation::begin(&host, user);
        assert_eq!(talk.ask("echo $BERTH_USER"), user);
        assert_eq!(talk.end(), 0);
    }
    operator.wait(&format!("{} === 4", seats("free")));
    operator.wait("document.querySelector('#records').innerText.includes('frank')");
    operator.wait("document.querySelectorAll('#charts .mark').length > 8");
    operator.picture("pool-after", false);
    let metrics = measured(&host);
    for line in [
        // Nine users came, each was served, and each left a machine to put back.
        "berth_claims_total{result=\"accepted\"} 9",
        "berth_conversations_total{result=\"confirmed\"} 9",
        "berth_claim_seconds_count 9",
        "berth_wait_seconds_count 9",
        "berth_first_byte_seconds_count 9",
        "berth_pool_machines{pool=\"serve\",state=\"free\"} 4",
        "berth_pool_machines{pool=\"serve\",state=\"in_use\"} 0",
        "berth_pool_waiting{pool=\"serve\"} 0",
        "berth_pool_alarm{pool=\"serve\"} 0",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing in {metrics}");
    }
    // Machines are also put back before anybody has used them.
    let resets = metrics.lines().find_map(|line| line.strip_prefix("berth_reset_seconds_count "));
    let resets: u64 = resets.unwrap().parse().unwrap();
    assert!(resets >= 9, "{metrics}");
    operator.browser.dress(&operator.page.clone(), PHONE, true).unwrap();
    operator.fits();
    operator.picture("pool-phone", true);
    operator.is_content();
}

/// What the host has measured, by its local socket.
fn measured(host: &Host) -> String {
    let mut stream = UnixStream::connect(host.path("state/api.sock")).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

const SCREEN: &str = "(document.querySelector('.screen')?.innerText || '')";

#[test]
fn guest_console_is_used_by_two_pages_and_the_command_line() {
    let host = Host::up(THREE);
    let mut operator = Operator::follow(&host, "operator");
    let first = operator.page.clone();
    let second = operator.another(&host, "administrator");
    for page in [&first, &second] {
        operator.go(page);
        operator.ask("document.querySelector('.part[data-key=mail] .take').click()");
        operator.press("Console…");
        operator.wait(&format!("{SCREEN}.length > 100"));
    }
    // What one types, both see; what looks like markup is none.
    operator.go(&first);
    operator.wait("document.activeElement.className === 'keys'");
    operator.browser.key(&first, ("Enter", 13), 0).unwrap();
    operator.browser.insert(&first, "clear; echo \"<b id=evil>$((6*7))</b>\"; tput 2>/dev/null; printf '\\033[1;32mgreen\\033[0m \\033[7mturned\\033[0m\\n'").unwrap();
    operator.browser.key(&first, ("Enter", 13), 0).unwrap();
    for page in [&first, &second] {
        operator.wait_on(page, &format!("{SCREEN}.includes('<b id=evil>42</b>')"));
        operator.wait_on(page, "!document.getElementById('evil')");
        operator.wait_on(
            page,
            "[...document.querySelectorAll('.style-b')].some((one) => one.textContent === 'green')",
        );
    }
    // Control keys, arrows (the shell's history) and tabs are the guest's.
    operator.go(&second);
    operator.browser.insert(&second, "sleep 1000").unwrap();
    operator.browser.key(&second, ("Enter", 13), 0).unwrap();
    // Before that the shell reads what is typed, letter by letter.
    let runs = "until ps -e -o args= | grep -qx 'sleep 1000'; do :; done";
    host.exec("mail", &["sh", "-c", runs]);
    operator.browser.key(&second, ("c", 67), 2).unwrap();
    operator.browser.insert(&second, "echo after-$((1+1))").unwrap();
    operator.browser.key(&second, ("Enter", 13), 0).unwrap();
    operator.wait_on(&first, &format!("{SCREEN}.includes('after-2')"));
    // Beside the command line.
    let mut beside = host.command(&["console", "mail"]);
    let beside = beside.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut beside = beside.spawn().unwrap();
    beside.stdin.take().unwrap().write_all(b"echo beside-$((2+2))\n").unwrap();
    operator.wait_on(&first, &format!("{SCREEN}.includes('beside-4')"));
    assert!(beside.wait().unwrap().success());
    operator.go(&first);
    operator.picture("guest-console", false);
    operator.browser.dress(&first, PHONE, false).unwrap();
    operator.fits();
    operator.picture("guest-console-phone", false);
    operator.browser.dress(&first, DESK, false).unwrap();

    // Whoever only looks does not see it.
    let refused = "fetch('/v1/partitions/mail/console', { headers: { Authorization: \
        `Bearer ${sessionStorage.getItem('berth-token')}` } }).then((answer) => answer.status)";
    let viewer = operator.another(&host, "viewer");
    assert_eq!(operator.browser.evaluate(&viewer, refused).unwrap(), 403);
    operator.browser.problems();

    // The guest's end is seen, and its last words stay: in pages and by command.
    operator.go(&first);
    operator.browser.key(&first, ("]", 221), 2).unwrap();
    operator.no_dialog();
    operator.go(&second);
    operator.browser.insert(&second, "echo c > /proc/sysrq-trigger").unwrap();
    operator.browser.key(&second, ("Enter", 13), 0).unwrap();
    operator.wait_on(&second, "document.querySelector('dialog').innerText.includes('last words')");
    operator.go(&first);
    operator.wait("document.querySelector('.part.failed')");
    operator.ask("document.querySelector('.part[data-key=mail] .take').click()");
    operator.press("Last words…");
    operator.wait(&format!("{SCREEN}.includes('Kernel panic - not syncing')"));
    operator.picture("last-words", false);
    let words = host.run(&["console", "mail"]);
    assert!(words.status.success());
    assert!(String::from_utf8_lossy(&words.stdout).contains("Kernel panic - not syncing"));
    assert!(String::from_utf8_lossy(&words.stderr).contains("failed"), "{words:?}");
    operator.is_content();
}
