//! Storage keys in a stock guest: a program reads and sets them, and an I/O
//! processor obeys them.

mod support;

use support::Host;

fn host(more: &str) -> Host {
    Host::up(&format!(
        "[main_storage]\nsize = \"112M\"\n\n\
         [[partition]]\nname = \"a\"\nsize = \"96M\"\nimage = \"minimal\"\nvcpus = 2\n{more}"
    ))
}

/// For pages of its own stack, which it stores to all the time: sets the key to
/// access key 3 without reference and change, and then resets the reference;
/// prints the key after the one, the condition code, and the key at the end.
const PLAY: &str = r#"
stack=$(cut -d' ' -f28 /proc/$$/stat)
for below in 0 1; do
  entry=$(dd if=/proc/$$/pagemap bs=8 skip=$((stack / 4096 - below)) count=1 2>/dev/null | od -An -t x8)
  page=$(((0x$(echo $entry) & 0x7fffffffffffff) * 4096))
  [ $page = 0 ] && continue
  /run/berth/storage-key set $page 0x30
  key=$(/run/berth/storage-key get $page)
  code=$(/run/berth/storage-key reset $page)
  echo $key $code $(/run/berth/storage-key get $page)
done
"#;

#[test]
fn guest_programs_read_and_set_storage_keys() {
    let host = host("");
    let output = host.exec("a", &["sh", "-c", PLAY]);
    let pages: Vec<Vec<u8>> = output
        .lines()
        .map(|line| {
            let numbers = line.split(' ').map(|number| number.trim_start_matches("0x"));
            numbers.map(|number| u8::from_str_radix(number, 16).unwrap()).collect()
        })
        .collect();
    for page in &pages {
        let [set, code, end] = page[..] else { panic!("{output}") };
        assert_eq!((set & 0xf8, end & 0xf8), (0x30, 0x30), "{output}");
        // Nobody but the guest clears bits: what was set stayed until the reset.
        assert!(code >= (set & 6) >> 1, "{output}");
        assert_eq!(code & 1 & !(end >> 1), 0, "the change bit was reset too: {output}");
    }
    assert!(pages.iter().any(|page| page[2] == 0x36), "no store was noted again: {output}");
}

#[test]
fn guest_devices_obey_the_storage_keys() {
    let host = host("io_keys = { rng = 3 }\n");
    // Access keys of a stock kernel's pages are 0: the device may not store.
    let log = host.path("state/workers/a.log");
    let read = || std::fs::read_to_string(&log).unwrap();
    assert_eq!(host.exec("a", &["echo", "alive"]), "alive\n");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !read().contains("a storage key forbade a transfer processor=\"rng\"") {
        assert!(std::time::Instant::now() < deadline, "no refusal in {}", read());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(host.exec("a", &["echo", "alive"]), "alive\n");
}
