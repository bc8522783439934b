//! A machine made from another's state becomes one of its own.

use std::fs;
use std::io;
use std::path::Path;

use agent_protocol::Renewal;

use crate::sys::{self, MS_BIND};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Does all of it; the error says for the operator what could not be done.
///
/// The random generator comes first: nothing else may be told apart if numbers
/// can not. The generation comes last, so that a program that sees it change
/// finds everything else changed.
pub(crate) fn renew(renewal: &Renewal, directory: &Path) -> Result<(), String> {
    let step = |what: &str, result: io::Result<()>| {
        result.map_err(|error| format!("{what}: {error}; the machine is still like its template"))
    };
    step("seeding the random generator", sys::add_entropy(&renewal.entropy))?;
    step("setting the clock", sys::set_clock(renewal.wall_clock_ns))?;
    step("setting the host name", set_hostname(&renewal.hostname))?;
    let machine_id = hexadecimal(&renewal.machine_id) + "\n";
    step("writing /etc/machine-id", fs::write("/etc/machine-id", machine_id))?;
    step("changing the boot id", set_boot_id(&uuid(&renewal.boot_id), directory))?;
    step("writing the generation", set_generation(renewal.generation, directory))
}

fn set_hostname(name: &str) -> io::Result<()> {
    sys::set_hostname(name)?;
    fs::write("/etc/hostname", format!("{name}\n"))
}

/// The kernel keeps its own for good: what programs read is laid over it.
fn set_boot_id(id: &str, directory: &Path) -> io::Result<()> {
    let file = directory.join("boot_id");
    // The same file every time: once is it laid over the kernel's.
    fs::write(&file, format!("{id}\n"))?;
    let shown = || fs::read_to_string(BOOT_ID);
    if shown()?.trim_end() == id {
        return Ok(());
    }
    let file = file.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    sys::mount_at(file, BOOT_ID, "", MS_BIND, "")?;
    if shown()?.trim_end() == id {
        Ok(())
    } else {
        Err(io::Error::other("the kernel shows another one"))
    }
}

/// Replaces the file, so that nobody reads half a number.
fn set_generation(generation: u64, directory: &Path) -> io::Result<()> {
    let (new, file) = (directory.join(".generation"), directory.join("generation"));
    fs::write(&new, format!("{generation}\n"))?;
    fs::rename(new, file)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The usual form: groups of 8, 4, 4, 4 and 12 digits.
fn uuid(bytes: &[u8; 16]) -> String {
    let groups = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    groups.map(hexadecimal).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_programs_expect_them() {
        let bytes = std::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(hexadecimal(&bytes), "00112233445566778899aabbccddeeff");
        assert_eq!(uuid(&bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn a_generation_is_replaced_as_a_whole() {
        let directory = std::env::temp_dir().join(format!("berth-renew-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for generation in [7, u64::MAX] {
            set_generation(generation, &directory).unwrap();
            let read = fs::read_to_string(directory.join("generation")).unwrap();
            assert_eq!(read, format!("{generation}\n"));
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
