//! Storage keys for programs in the guest.
//!
//! The agent's program under another name: `/run/berth/storage-key get ADDRESS`
//! prints the key of the page at a guest physical address, `set ADDRESS KEY` sets
//! it, and `reset ADDRESS` prints reference and change as they were and clears the
//! reference. Numbers are decimal, or hexadecimal after `0x`. It works the storage
//! key unit by `/dev/mem`, so it needs root, and returns when every vCPU notes what
//! it does next. A page that does not exist ends it by SIGBUS.

use std::fs::{File, OpenOptions};
use std::io;

use crate::sys::Register;

/// Registers of the unit, one for each page: load and store its key.
const KEYS: u64 = 0x2000_0000;
/// Load and clear reference.
const RESETS: u64 = 0x3000_0000;
/// 1 while a vCPU may still miss an access.
const PENDING: u64 = 0x1fff_ffff;
/// Pages the unit has registers for.
const PAGES: u64 = 1 << 28;
const PAGE: u64 = 4096;

/// What is asked for, of which page.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Get(u64),
    Set(u64, u8),
    Reset(u64),
}

/// Runs with the arguments after the program's name.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let arguments: Vec<_> = arguments.collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let unit = Unit(OpenOptions::new().read(true).write(true).open("/dev/mem")?);
    match parse(&arguments)? {
        Request::Get(page) => println!("{:#04x}", unit.at(KEYS + page)?.load()),
        Request::Set(page, key) => {
            unit.at(KEYS + page)?.store(key);
            unit.settle()?;
        }
        Request::Reset(page) => {
            println!("{:#04x}", unit.at(RESETS + page)?.load());
            unit.settle()?;
        }
    }
    Ok(())
}

fn parse(arguments: &[&str]) -> io::Result<Request> {
    let page = |text: &str| {
        let page = number(text)? / PAGE;
        if page < PAGES { Ok(page) } else { Err(io::Error::other("the address is above 2^40")) }
    };
    match arguments {
        ["get", address] => Ok(Request::Get(page(address)?)),
        ["set", address, key] => match u8::try_from(number(key)?) {
            Ok(key) if key & 1 == 0 => Ok(Request::Set(page(address)?, key)),
            _ => Err(io::Error::other("a key is an even number of at most 0xfe")),
        },
        ["reset", address] => Ok(Request::Reset(page(address)?)),
        _ => Err(io::Error::other("give: get ADDRESS, set ADDRESS KEY, or reset ADDRESS")),
    }
}

fn number(text: &str) -> io::Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| io::Error::other(format!("{text:?} is no number: {error}")))
}

/// The storage key unit, by the memory of the machine.
struct Unit(File);

impl Unit {
    fn at(&self, address: u64) -> io::Result<Register> {
        Register::map(&self.0, address)
    }

    /// Waits until no vCPU misses an access.
    fn settle(&self) -> io::Result<()> {
        let pending = self.at(PENDING)?;
        while pending.load() != 0 {
            std::thread::yield_now();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_a_page_by_any_address_in_it() {
        assert_eq!(parse(&["get", "0x80205fff"]).unwrap(), Request::Get(0x80205));
        assert_eq!(parse(&["set", "4096", "0x30"]).unwrap(), Request::Set(1, 0x30));
        assert_eq!(parse(&["reset", "0"]).unwrap(), Request::Reset(0));
        for wrong in [
            &["get"][..],
            &["get", "x"],
            &["get", "0x10000000000"],
            &["set", "0", "0x31"],
            &["set", "0", "256"],
            &["lose", "0"],
            &[],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
