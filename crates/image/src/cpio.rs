//! Writes initramfs archives: the "newc" cpio format, uncompressed, as the
//! kernel's `Documentation/driver-api/early-userspace/buffer-format.rst` has it.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// Writes one archive; every entry belongs to root and bears time 0.
pub(crate) struct Archive<W> {
    out: W,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, next_inode: 1 }
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let size = u32::try_from(data.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "over 4 GiB"))?;
        let name_size = name.len() as u32 + 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let (major, minor) = device;
        write!(
            self.out,
            "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}",
            self.next_inode, 0, 0, 0, 0, 0, 0,
        )?;
        self.next_inode += 1;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// A directory; its parent must have come before.
    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    /// A file that may be executed.
    pub(crate) fn file(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.entry(name, EXECUTABLE, (0, 0), data)
    }

    /// A character device.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, DEVICE, (major, minor), &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive by the format's words: (name, mode, content).
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).unwrap(), 16)
                    .unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode, content));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("modules").unwrap();
        for size in 0..9 {
            archive.file(&"n".repeat(size + 1), &vec![b'x'; size]).unwrap();
        }
        archive.device("console", 5, 1).unwrap();
        let entries = read(&archive.finish().unwrap());
        assert_eq!(entries.len(), 11);
        assert_eq!(entries[0], ("modules".to_owned(), DIRECTORY, Vec::new()));
        for size in 0..9 {
            assert_eq!(entries[size + 1], ("n".repeat(size + 1), EXECUTABLE, vec![b'x'; size]));
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut archive = Archive::new(full);
        let error = archive.file("init", b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
