//! Clients of the guest's console, and its last words.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_processors::{ClientRead, ConsoleEnd};

/// How long the guest may take to read what is typed before some is dropped.
const TYPED: Duration = Duration::from_secs(5);

/// Joins `client` and the console until the client leaves. Not waited for.
pub(super) fn attach(console: &ConsoleEnd, client: UnixStream) {
    let usable = client
        .set_nonblocking(false)
        .and_then(|()| client.set_read_timeout(None))
        .and_then(|()| client.set_write_timeout(None));
    if let Err(error) = usable {
        tracing::warn!(%error, "a client's connection cannot be used");
        return;
    }
    let client = Arc::new(client);
    let output = console.attach(true);
    let (to, from) = (Arc::clone(&client), client);
    let console = console.clone();
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let started = thread("console-out")
        .spawn(move || {
            loop {
                match output.read(Duration::from_secs(1)) {
                    ClientRead::Output(bytes) => {
                        if (&*to).write_all(&bytes).is_err() {
                            break;
                        }
                    }
                    // Notices a client that left a guest that says nothing.
                    ClientRead::Quiet if Arc::strong_count(&to) == 1 => break,
                    ClientRead::Quiet => {}
                    ClientRead::Closed => break,
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        })
        .and_then(|_| {
            thread("console-in").spawn(move || {
                let mut buffer = [0; 4096];
                loop {
                    match (&*from).read(&mut buffer) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Ok(0) | Err(_) => break,
                        Ok(count) => {
                            console.input_until(&buffer[..count], Instant::now() + TYPED);
                        }
                    }
                }
            })
        });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread for a console's client");
    }
}

/// The kernel's last words, if it panicked (Linux, kernel/panic.c).
pub(super) fn panic_text(tail: &[u8]) -> Option<String> {
    let tail = String::from_utf8_lossy(tail);
    tail.lines().rev().find_map(|line| {
        let at = line.find("Kernel panic - not syncing")?;
        // The kernel writes its time in front, or nothing.
        let before = line[..at].trim_end();
        let by_kernel = before.is_empty() || before.ends_with(']');
        let printable = |c: &char| !c.is_control();
        by_kernel.then(|| line[at..].chars().filter(printable).take(200).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_panic_is_found_and_a_users_words_are_not() {
        let tail =
            b"[    1.2] Run /init\r\n[    1.5] Kernel panic - not syncing: No working init\r\n\
            [    1.5] ---[ end Kernel panic - not syncing: No working init ]---\r\n";
        assert_eq!(panic_text(tail).unwrap(), "Kernel panic - not syncing: No working init");
        assert_eq!(panic_text(b"$ echo Kernel panic - not syncing: ha\r\n"), None);
        assert_eq!(panic_text(b"\xff\xfe"), None);
    }
}
