//! A program in Python, by the interpreter of an image whose disk the machine has.

use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{sys, words};

/// The word on the kernel's command line.
const WORD: &str = "bench.python";
/// The program's name among the others.
const NAME: &str = "python";
const DISK: &std::ffi::CStr = c"/dev/vda";
const ROOT: &std::ffi::CStr = c"/image";
const DEVICES: &std::ffi::CStr = c"/image/dev";

/// Objects, dictionaries, lists, text, big and small integers and doubles, as programs
/// use them; says a checksum.
const PROGRAM: &str = r#"
import sys

class Account:
    def __init__(self, number):
        self.number = number
        self.balance = 0
        self.entries = []

    def book(self, amount, text):
        self.balance += amount
        self.entries.append((amount, text))

def accounts(rounds):
    all = {number: Account(number) for number in range(97)}
    state = 12345
    for step in range(rounds):
        state = (state * 1103515245 + 12345) % 2147483648
        account = all[state % 97]
        account.book(state % 2001 - 1000, "transfer %d" % (step % 50))
    return sum(a.number * a.balance + len(a.entries) for a in all.values())

def words(rounds):
    counts = {}
    text = "the quick brown fox jumps over the lazy dog and runs away from it"
    for step in range(rounds):
        for word in text.split():
            key = word + str(step % 13)
            counts[key] = counts.get(key, 0) + len(word)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return sum((index + 1) * count for index, (_, count) in enumerate(order))

def queens(size):
    found = 0
    stack = [(0, 0, 0, 0)]
    full = (1 << size) - 1
    while stack:
        row, columns, left, right = stack.pop()
        if row == size:
            found += 1
            continue
        free = full & ~(columns | left | right)
        while free:
            bit = free & -free
            free ^= bit
            stack.append((row + 1, columns | bit, (left | bit) << 1, (right | bit) >> 1))
    return found

def springs(steps):
    x = [float(i % 7) for i in range(20)]
    v = [0.0] * 20
    for _ in range(steps):
        for i in range(20):
            force = x[i - 1] + x[(i + 1) % 20] - 2.0 * x[i]
            v[i] += 0.05 * force
        x = [a + 0.05 * b for a, b in zip(x, v)]
    return int(sum(x) * 1e6) + int(v[3] * 1e9)

def digits(count):
    a, b = 1, 1
    for _ in range(count):
        a, b = b, a + b
    return b % 1000000007 + len(str(b))

total = 1
for part in (accounts(60000), words(2500), queens(7), springs(1200), digits(3000)):
    total = (total * 1000003 ^ part) % (1 << 64)
print("%016x" % total)
"#;

/// Whether the machine has the disk.
pub(crate) fn is_there() -> bool {
    words::of_kernel().split_whitespace().any(|word| word == WORD)
}

/// Runs the program if it is wanted; the first process has the image's files for its
/// own from then on.
pub(crate) fn run(console: &sys::Console, wanted: &words::Words) -> io::Result<()> {
    if !wanted.want(NAME) {
        return Ok(());
    }
    for list in ["/modules/order", "/modules/order.disk"] {
        sys::load_modules(list)?;
    }
    sys::mount_read_only(DISK, ROOT, c"squashfs")?;
    sys::mount_new(c"dev", DEVICES, c"devtmpfs")?;
    std::os::unix::fs::chroot("/image")?;
    std::env::set_current_dir("/")?;
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-I", "-S", "-c", PROGRAM]).env_clear().stdin(Stdio::null());
    // The first time its files come from the disk.
    let first = python.output()?;
    let start = Instant::now();
    let output = python.output()?;
    let nanoseconds = start.elapsed().as_nanos();
    if !output.status.success() || output.stdout != first.stdout {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let checksum = String::from_utf8_lossy(&output.stdout);
    console.say(&format!("BENCH {NAME} {nanoseconds} {}", checksum.trim()));
    Ok(())
}
