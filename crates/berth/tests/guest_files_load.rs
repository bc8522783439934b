//! Users' files while much is done with them: a machine that moves, a manager that dies.

mod support;

use std::time::{Duration, Instant};

use support::pool::{Conversation, all_free};
use support::{Host, kill, processes};

const POOL: &str = r#"
[main_storage]
size = "512M"

[[pool]]
name = "serve"
count = 1
size = "112M"
image = "minimal"
files = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
anybody = true
"#;

/// Writes, reads back, appends, renames and lists until it is told to stop. A line in
/// `bad` for whatever is not as it was written; one in `failed` for what was refused.
const LOAD: &str = r#"
cd /files/alice; mkdir -p load; cd load
dd if=/dev/urandom of=/tmp/block bs=64k count=4 2>/dev/null
sum=$(md5sum < /tmp/block)
turn() {
  cd /files/alice/load || return 1
  cp /tmp/block "w$1" && mv "w$1" "r$1" || return 1
  now=$(md5sum < "r$1") || return 1
  [ "$now" = "$sum" ] || echo "turn $1: $now" >> /tmp/bad
  echo "line $1" >> lines || return 1
  last=$(tail -n 1 lines) || return 1
  [ "$last" = "line $1" ] || echo "turn $1: $last" >> /tmp/bad
  listed $1 || late $1 || { [ $? = 2 ] || echo "turn $1: not listed" >> /tmp/bad; return 1; }
  rm -f "r$1"
}
listed() {
  all=$(ls) || return 2
  echo "$all" | grep -q "^r$1$"
}
# A directory that cannot be read to its end is short, and ls says nothing of it.
late() {
  echo "turn $1: listed late" >> /tmp/failed
  sleep 1; listed $1
}
: > /tmp/bad; : > /tmp/failed
work() {
  i=0; good=0
  while [ ! -e /tmp/stop ]; do
    i=$((i + 1))
    if turn $i 2>> /tmp/failed; then
      good=$((good + 1)); echo $good > /tmp/turns
    else
      sleep 0.1
    fi
  done
}
work &
"#;

/// How many turns were done; waits for more than `than`.
fn turns(machine: &mut Conversation, than: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let turns = machine.ask("cat /tmp/turns 2>/dev/null || echo 0").parse().unwrap_or(0);
        if turns > than {
            return turns;
        }
        assert!(Instant::now() < deadline, "no turn after {than}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn guest_files_go_on_while_their_machine_moves_ten_times() {
    let host = Host::up(POOL);
    all_free(&host);
    let mut alice = Conversation::begin(&host, "alice");
    alice.say(LOAD);
    let mut done = turns(&mut alice, 0);
    for place in ["128M", "300M", "350M", "128M", "0", "64M", "384M", "200M", "256M", "0"] {
        let moved = host.run(&["move", "serve-00", "--to", place]);
        assert!(moved.status.success(), "{place}: {moved:?}");
        // It goes on there.
        done = turns(&mut alice, done);
    }
    assert_eq!(alice.ask("touch /tmp/stop; wait; cat /tmp/bad /tmp/failed | wc -l"), "0");
    assert_eq!(alice.ask("ls | tr '\\n' ' '; echo"), "lines");
    assert_eq!(alice.end(), 0);
}

#[test]
fn guest_files_are_right_after_their_manager_died_under_load() {
    let host = Host::up(POOL);
    all_free(&host);
    let mut alice = Conversation::begin(&host, "alice");
    alice.say(LOAD);
    let mut done = turns(&mut alice, 2);
    for _ in 0..3 {
        let manager = processes("berth: files", &host.path("state"));
        kill(&manager[0]);
        // What was under way may have failed; the rest goes on.
        done = turns(&mut alice, done + 1);
    }
    assert_eq!(alice.ask("touch /tmp/stop; wait; tr '\\n' ';' < /tmp/bad; echo"), "");
    assert_eq!(alice.ask("cd /files/alice/load; tail -n 1 lines | cut -d' ' -f1"), "line");
    let kept = std::fs::read_to_string(host.path("state/files/alice/load/lines")).unwrap();
    assert!(kept.lines().count() as u64 >= u64::from(done), "{done}: {kept}");
    assert_eq!(alice.end(), 0);
}
