//! A machine made from another's state becomes one of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use agent_protocol::Renewal;

use crate::sys::{self, MS_BIND};

const HOSTNAME: &str = "/etc/hostname";
const MACHINE_ID: &str = "/etc/machine-id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where a machine says who it is. Made at its first renewal, which is before it is
/// captured; then each file has but to be written.
pub(crate) struct Identity {
    random: File,
    hostname: Text,
    machine_id: Text,
    boot_id: Text,
    generation: Text,
}

/// A file of a few characters that is kept open.
struct Text {
    file: File,
    length: u64,
}

impl Text {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, length: 0 })
    }

    /// The same, seen in place of the file at `over`.
    fn lay(path: &Path, over: &str) -> io::Result<Self> {
        let text = Self::create(path)?;
        if !Path::new(over).exists() {
            File::create(over)?;
        }
        let path = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        sys::mount_at(path, over, "", MS_BIND, "")?;
        Ok(text)
    }

    /// Writes it anew, in one piece.
    fn set(&mut self, text: &str) -> io::Result<()> {
        let length = text.len() as u64;
        self.file.write_all_at(text.as_bytes(), 0)?;
        if self.length != length {
            self.file.set_len(length)?;
            self.length = length;
        }
        Ok(())
    }
}

impl Identity {
    fn make(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            random: OpenOptions::new().write(true).open("/dev/urandom")?,
            hostname: Text::lay(&directory.join("hostname"), HOSTNAME)?,
            machine_id: Text::lay(&directory.join("machine-id"), MACHINE_ID)?,
            // The kernel keeps its own for good.
            boot_id: Text::lay(&directory.join("boot_id"), BOOT_ID)?,
            generation: Text::create(&directory.join("generation"))?,
        })
    }
}

/// Does all of it; the error says for the operator what could not be done.
///
/// The random generator comes first: nothing else may be told apart if numbers
/// can not. The generation comes last, so that a program that sees it change
/// finds everything else changed.
pub(crate) fn renew(
    identity: &mut Option<Identity>,
    renewal: &Renewal,
    directory: &Path,
) -> Result<(), String> {
    let failed = |what: &str, error: io::Error| {
        format!("{what}: {error}; the machine is still like its template")
    };
    let step = |what: &str, result: io::Result<()>| result.map_err(|error| failed(what, error));
    let own = match identity {
        Some(own) => own,
        None => identity.insert(
            Identity::make(directory).map_err(|error| failed("making its identity", error))?,
        ),
    };
    step("seeding the random generator", sys::add_entropy(&own.random, &renewal.entropy))?;
    step("setting the clock", sys::set_clock(renewal.wall_clock_ns))?;
    step("setting the host name", sys::set_hostname(&renewal.hostname))?;
    step("writing the host name", own.hostname.set(&format!("{}\n", renewal.hostname)))?;
    let machine_id = hexadecimal(&renewal.machine_id) + "\n";
    step("writing the machine id", own.machine_id.set(&machine_id))?;
    let boot_id = uuid(&renewal.boot_id) + "\n";
    step("writing the boot id", own.boot_id.set(&boot_id))?;
    step("writing the generation", own.generation.set(&format!("{}\n", renewal.generation)))
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
    fn a_text_is_replaced_as_a_whole() {
        let path = std::env::temp_dir().join(format!("berth-renew-{}", std::process::id()));
        let mut text = Text::create(&path).unwrap();
        for content in ["7\n", "18446744073709551615\n", "8\n", ""] {
            text.set(content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::remove_file(path).unwrap();
    }
}
