//! Users' files in real guests: whose they are follows whoever has the machine.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::pool::{Conversation, all_free};
use support::{Host, kill, processes};

/// Two machines, of which one user may have both.
const POOL: &str = r#"
[main_storage]
size = "512M"

[files]
quota = "4M"
most = 200

[[pool]]
name = "serve"
count = 2
size = "112M"
image = "minimal"
files = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
anybody = true
"#;

/// What a hostile user tries; every line that gets somewhere says so.
const HOSTILE: &str = r#"
cd /files/eve
says() { "$@" > /dev/null 2>&1 && echo "got through: $*"; }
says cat /files/alice/a
says cat ../alice/a
says cat ../../files/../files/alice/a
says ls /files/alice
says mkdir /files/x
says touch /files/x
says mv /files/eve /files/other
says rmdir /files/eve
ln -s /files/alice/a out; ln -s ../alice up; ln -s ../../../../../secret far
says cat out
says ls up/
says cat far
says mknod fifo p
says mknod null c 1 3
says mknod disk b 254 0
touch f
says ln f hard
says ln /files/eve/f /files/eve/hard
long=$(head -c 300 /dev/zero | tr '\0' n)
says touch $long
chmod 6777 f; ls -l f | cut -c1-10
deep=d; for i in 1 2 3 4 5 6 7; do deep=$deep/$deep; done
says mkdir -p $deep
says dd if=/dev/zero of=big bs=64k count=1000
says mount -o bind /files/eve /files/alice
echo "and that is all"
"#;

fn files(host: &Host, arguments: &[&str]) {
    let output = host.run(&[&["files"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn guest_files_follow_whoever_has_the_machine() {
    let host = Host::up(POOL);
    all_free(&host);
    fs::write(host.path("state/secret"), "of the host").unwrap();

    // Alice in both machines at once: what one does the other sees.
    let mut one = Conversation::begin(&host, "alice");
    let mut two = Conversation::begin(&host, "alice");
    assert_eq!(one.ask("ls /files"), "alice");
    let machines = [&mut one, &mut two].map(|it| it.ask("cat /proc/sys/kernel/hostname"));
    assert_ne!(machines[0], machines[1]);
    assert_eq!(one.ask("cd /files/alice; mkdir shared; echo first > a; cat a"), "first");
    assert_eq!(two.ask("cat /files/alice/a"), "first");
    assert_eq!(two.ask("cd /files/alice; echo other > a; echo more >> a; wc -l < a"), "2");
    assert_eq!(one.ask("cat a | tr '\\n' ' '; echo"), "other more");
    assert_eq!(one.ask("mv a b; ls /files/alice | tr '\\n' ' '; echo"), "b shared");
    assert_eq!(two.ask("ls /files/alice | tr '\\n' ' '; mv b a; echo"), "b shared");
    // Programs run from there, and more than one request's worth is read back.
    let run = "cp /bin/busybox sh; ./sh -c 'echo ran'; cmp /bin/busybox sh && rm sh";
    assert_eq!(one.ask(run), "ran");
    assert_eq!(one.ask("ls sh 2>&1 | grep -c such"), "1");
    assert_eq!(one.ask("echo note > shared/notes; df -P . | tail -1 | cut -d' ' -f1"), "berth");
    assert_eq!([one.end(), two.end()], [0, 0]);
    all_free(&host);
    assert_eq!(fs::read_to_string(host.path("state/files/alice/a")).unwrap(), "other\nmore\n");

    // Bob on the same machines: nothing of hers, and the same machine again.
    for _ in 0..2 {
        let mut bob = Conversation::begin(&host, "bob");
        assert_eq!(bob.ask("ls /files"), "bob");
        assert_eq!(bob.ask("cat /files/alice/a 2>/dev/null || echo refused"), "refused");
        assert_eq!(bob.ask("echo bobs >> /files/bob/own; tail -1 /files/bob/own"), "bobs");
        assert_eq!(bob.end(), 0);
        all_free(&host);
    }
    assert_eq!(fs::read_to_string(host.path("state/files/bob/own")).unwrap(), "bobs\nbobs\n");

    // A grant and its revoke count in a conversation that goes on.
    let mut bob = Conversation::begin(&host, "bob");
    assert_eq!(bob.ask("ls /files"), "bob");
    files(&host, &["grant", "alice:shared", "--to", "user:bob"]);
    assert_eq!(bob.ask("ls /files | tr '\\n' ' '; ls /files/alice"), "alice bob shared");
    assert_eq!(bob.ask("exec 3< /files/alice/shared/notes; head -c 2 <&3; echo"), "no");
    let write = "echo x 2>/dev/null >> /files/alice/shared/notes && echo written || echo refused";
    assert_eq!(bob.ask(write), "refused");
    files(&host, &["grant", "alice:shared", "--to", "user:bob", "--write"]);
    assert_eq!(bob.ask(write), "written");
    files(&host, &["revoke", "alice:shared", "--from", "user:bob"]);
    assert_eq!(bob.ask("cat <&3 2>/dev/null || echo refused"), "refused");
    assert_eq!(bob.ask("ls /files"), "bob");
    let (code, shown) = host.json(&["files", "list", "alice"]);
    assert_eq!((code, &shown["spaces"][0]["owner"]), (0, &"alice".into()), "{shown}");
    assert_eq!(shown["spaces"][0]["files"], 3, "{shown}");

    // A file manager that dies comes back, and knows whose the machine is.
    let manager = processes("berth: files", &host.path("state"));
    kill(&manager[0]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while bob.ask("cd /; ls /files 2>/dev/null || echo gone") != "bob" {
        assert!(Instant::now() < deadline, "it does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(bob.ask("tail -1 /files/bob/own"), "bobs");
    assert_eq!(bob.end(), 0);

    // An administrator has a machine and nobody's files.
    all_free(&host);
    assert_eq!(host.exec("serve-00", &["ls", "/files"]), "");
}

#[test]
fn guest_files_withstand_a_hostile_user() {
    let host = Host::up(POOL);
    all_free(&host);
    fs::write(host.path("secret"), "of the host").unwrap();
    let mut alice = Conversation::begin(&host, "alice");
    assert_eq!(alice.ask("echo hers > /files/alice/a; cat /files/alice/a"), "hers");
    let mut eve = Conversation::begin(&host, "eve");
    fs::write(host.path("hostile"), HOSTILE).unwrap();
    eve.say(HOSTILE);
    let mut said = vec![eve.ask("")];
    while said.last().is_some_and(|line| line != "and that is all") {
        said.push(eve.ask(""));
    }
    assert_eq!(said, ["-rwxrwxrwx", "and that is all"]);
    assert_eq!(eve.end(), 0);
    assert_eq!(alice.ask("cat /files/alice/a"), "hers");
    assert_eq!(alice.end(), 0);
    all_free(&host);

    let mine = fs::read_dir(host.path("state/files")).unwrap().flatten();
    let mut mine: Vec<_> = mine.map(|entry| entry.file_name()).collect();
    mine.sort();
    assert_eq!(mine, ["alice", "eve"]);
    let held = fs::metadata(host.path("state/files/eve/big")).unwrap().len();
    assert!((1 << 20..=4 << 20).contains(&held), "as much as the quota gave: {held}");
    assert_eq!(fs::read_to_string(host.path("secret")).unwrap(), "of the host");
}
