//! What follows the worked example: growth into the gap, an exchange without
//! a free byte, and compaction.

use std::time::{Duration, Instant};

use super::DemoError;
use super::watch::{Watch, all_went_on};
use crate::own_host::OwnHost;

/// How long a guest may take to count memory that it has taken.
const COUNTED: Duration = Duration::from_secs(60);

/// From Fig. 4A on: lpar1 at 0M, lpar2 at 192M.
pub(super) fn run(host: &OwnHost, guests: &mut [Watch]) -> Result<(), DemoError> {
    println!("\nlpar1 grows into the gap behind it, and its guest gets the memory:\n");
    let had = memory(host, "lpar1")?;
    host.show(&MEMORY_OF_LPAR1)?;
    host.show(&["expand", "lpar1", "--by", "64M"])?;
    let deadline = Instant::now() + COUNTED;
    while memory(host, "lpar1")? <= had && Instant::now() < deadline {}
    host.show(&MEMORY_OF_LPAR1)?;

    println!("\nlpar2 takes what is left, and main storage is full:\n");
    host.show(&["expand", "lpar2", "--by", "61M"])?;
    came_through(host, guests)?;

    println!("\nThere is no free byte, and they change places all the same:\n");
    host.show(&["exchange", "lpar1", "lpar2"])?;
    came_through(host, guests)?;

    println!("\nBoth give back what they can, and that leaves gaps:\n");
    host.show(&["shrink", "lpar2", "--to", "256M"])?;
    host.show(&["shrink", "lpar1", "--to", "128M"])?;
    came_through(host, guests)?;

    println!("\nThe gaps become one, at the least copying there is:\n");
    host.show(&["compact"])?;
    came_through(host, guests)
}

/// Main storage after a command, and what the guests say of it.
fn came_through(host: &OwnHost, guests: &mut [Watch]) -> Result<(), DemoError> {
    all_went_on(guests)?;
    println!();
    Ok(host.show(&["status"])?)
}

const MEMORY_OF_LPAR1: [&str; 6] = ["exec", "lpar1", "--", "grep", "MemTotal", "/proc/meminfo"];

/// The memory a guest counts, in KiB.
fn memory(host: &OwnHost, guest: &str) -> Result<u64, DemoError> {
    let said = host.output(&["exec", guest, "--", "grep", "MemTotal", "/proc/meminfo"])?;
    total(&said).ok_or_else(|| DemoError::Memory { guest: guest.into(), said })
}

fn total(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_memory_is_read_from_its_kernels_line() {
        assert_eq!(total("MemTotal:         125404 kB\n"), Some(125_404));
        assert_eq!(total("MemTotal:\n"), None);
    }
}
