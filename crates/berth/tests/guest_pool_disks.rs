//! Data disks of pools: captured with the machine, and spotless as it is.
#![expect(clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::os::unix::fs::MetadataExt;

use support::Host;
use support::pool::{Conversation, all_free, allocate};

const POOL: &str = r#"
[main_storage]
size = "256M"

[[pool]]
name = "serve"
count = 2
size = "112M"
image = "minimal"
disk = "64M"
wait = "1s"
anybody = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh", "-e"]
initialise = ["/bin/sh", "-c", "echo model > /data/model && echo cached > /data/cache && sync && echo later > /data/later"]
"#;

/// Bytes that a machine's disk costs the host.
fn cost(host: &Host, machine: &str) -> u64 {
    let path = host.path(&format!("state/disks/{machine}.overlay"));
    let found = std::fs::metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    found.blocks() * 512
}

#[test]
fn guest_disk_of_a_pool_is_as_captured_in_every_conversation() {
    let host = Host::up(POOL);
    all_free(&host);
    let initialised =
        "cat /data/model /data/later | tr '\\n' ' '; ls /data | grep -c secret || true";
    let wanted = "model later 0";
    let empty = [cost(&host, "serve-00"), cost(&host, "serve-01")];

    // Two at once write to their own, on the medium and in their page caches.
    let mut both = [Conversation::begin(&host, "alice"), Conversation::begin(&host, "bob")];
    for one in &mut both {
        assert_eq!(one.ask(initialised), wanted);
        let write = "rm /data/model; head -c 4000000 /dev/urandom > /data/secret; sync; \
                     echo $BERTH_USER > /data/secret-too; cat /data/secret-too";
        let user = one.ask(write);
        assert!(user == "alice" || user == "bob", "{user}");
    }
    for machine in ["serve-00", "serve-01"] {
        assert!(cost(&host, machine) > 4_000_000, "{machine} has written nothing");
    }
    for one in both {
        assert_eq!(one.end(), 0);
    }
    all_free(&host);
    assert_eq!([cost(&host, "serve-00"), cost(&host, "serve-01")], empty, "something is left");

    // Whoever comes next on either machine finds it as it was captured, and so does
    // the file system's own check.
    let mut both = [Conversation::begin(&host, "carol"), Conversation::begin(&host, "dave")];
    for one in &mut both {
        assert_eq!(one.ask(initialised), wanted);
        assert_eq!(one.ask("echo 3 > /proc/sys/vm/drop_caches; cat /data/later"), "later");
        assert_eq!(one.ask("dmesg | grep -ci 'ext4.*error' || true"), "0");
    }
    for one in both {
        assert_eq!(one.end(), 0);
    }

    // Also after a start from the capture on disk, and when the host was killed.
    all_free(&host);
    host.kill();
    host.comes_back();
    all_free(&host);
    assert_eq!(allocate(&host, "serve/shell", "erin", initialised), (0, format!("{wanted}\n")));
    assert!(host.run(&["down"]).status.success());
    host.comes_back();
    let log = std::fs::read_to_string(host.path("state/host.log")).unwrap();
    assert!(log.contains("the capture of an earlier start fits"), "{log}");
    assert_eq!(allocate(&host, "serve/shell", "erin", initialised), (0, format!("{wanted}\n")));
}
