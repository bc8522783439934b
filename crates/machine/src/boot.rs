//! Puts a kernel, its initial ramdisk and the device tree into storage.
//!
//! ```text
//! STORAGE_BASE                                                     end
//! | text_offset | kernel image (image_size) |  …  | initrd | tree |
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, ReadVolatile};

use crate::memory_map::STORAGE_BASE;

/// Why a guest could not be put into storage. The operator is to blame: the
/// kernel, the ramdisk or the partition's size must change.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file of the image cannot be read.
    #[error("cannot read {path}; build the image again")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel is not an uncompressed riscv64 Linux image.
    #[error("{path} is not a riscv64 Linux kernel image (no RISC-V header); build the image again")]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// Kernel, ramdisk and device tree need more storage than there is.
    #[error(
        "the guest needs at least {needed} bytes of storage to boot and has {size}; give the partition more"
    )]
    TooSmall {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        size: u64,
    },
    /// The storage window refused a store that should have fitted.
    #[error("cannot write the guest's storage")]
    Storage(#[source] vm_memory::GuestMemoryError),
    /// The device tree cannot be written, e.g. a NUL in the command line.
    #[error("cannot describe the machine to the guest; check the kernel command line")]
    DeviceTree(#[source] vm_fdt::Error),
}

/// The header of a RISC-V Linux `Image`
/// (Linux, Documentation/arch/riscv/boot-image-header.rst).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KernelHeader {
    /// Offset from a 2 MiB boundary at which the kernel expects to be.
    pub(crate) text_offset: u64,
    /// Bytes from its start, zero-initialised data included.
    pub(crate) image_size: u64,
}

impl KernelHeader {
    const LENGTH: usize = 64;

    fn parse(header: &[u8; Self::LENGTH]) -> Option<Self> {
        let word = |at: usize| {
            header[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        (&header[56..60] == b"RSC\x05").then(|| Self { text_offset: word(8), image_size: word(16) })
    }
}

/// Where everything is, known before anything is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kernel: u64,
    pub(crate) initrd: Option<(u64, u64)>,
    pub(crate) device_tree: u64,
}

/// Room for the device tree at the end of storage; also its alignment.
const TREE_ROOM: u64 = 64 << 10;
const PAGE: u64 = 4096;

impl Layout {
    /// Everything that does not move goes to the end of storage.
    fn plan(
        header: &KernelHeader,
        file: u64,
        initrd: Option<u64>,
        size: u64,
    ) -> Result<Self, BootError> {
        let ramdisk = initrd.unwrap_or(0).next_multiple_of(PAGE);
        let kernel_end = header.text_offset.saturating_add(header.image_size.max(file));
        let needed = kernel_end.saturating_add(ramdisk).saturating_add(2 * TREE_ROOM);
        if needed > size {
            return Err(BootError::TooSmall { needed, size });
        }
        let device_tree = STORAGE_BASE + (size - TREE_ROOM) / TREE_ROOM * TREE_ROOM;
        let initrd = initrd.map(|length| (device_tree - ramdisk, device_tree - ramdisk + length));
        Ok(Self { kernel: STORAGE_BASE + header.text_offset, initrd, device_tree })
    }
}

/// An opened file of the image and its length.
struct Piece<'a> {
    path: &'a Path,
    file: File,
    length: u64,
}

impl<'a> Piece<'a> {
    fn open(path: &'a Path) -> Result<Self, BootError> {
        let read = |source| BootError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        Ok(Self { path, file, length })
    }

    fn load(&mut self, memory: &GuestMemoryMmap, at: u64) -> Result<(), BootError> {
        let mut at = at;
        let end = at + self.length;
        while at < end {
            let chunk = usize::try_from((end - at).min(1 << 20)).unwrap_or(1 << 20);
            let mut read = 0;
            // The file may shrink under us: a short read ends with an error,
            // not with a guest that lacks its tail.
            while read < chunk {
                let bytes = self.read_into(memory, at + read as u64, chunk - read)?;
                if bytes == 0 {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(BootError::Read { path: self.path.to_owned(), source });
                }
                read += bytes;
            }
            at += chunk as u64;
        }
        Ok(())
    }

    fn read_into(
        &mut self,
        memory: &GuestMemoryMmap,
        at: u64,
        length: usize,
    ) -> Result<usize, BootError> {
        memory
            .read_volatile_from(GuestAddress(at), &mut FileSource(&mut self.file), length)
            .map_err(BootError::Storage)
    }
}

/// `File` as a volatile source that retries interrupted reads.
struct FileSource<'a>(&'a mut File);

impl ReadVolatile for FileSource<'_> {
    fn read_volatile<B: vm_memory::bitmap::BitmapSlice>(
        &mut self,
        buffer: &mut vm_memory::VolatileSlice<'_, B>,
    ) -> Result<usize, vm_memory::VolatileMemoryError> {
        self.0.read_volatile(buffer)
    }
}

/// Loads kernel and ramdisk, leaves the device tree to [`write_tree`].
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    size: u64,
    kernel: &Path,
    initrd: Option<&Path>,
) -> Result<Layout, BootError> {
    let mut kernel = Piece::open(kernel)?;
    let not_a_kernel = || BootError::NotAKernel { path: kernel.path.to_owned() };
    let mut bytes = [0; KernelHeader::LENGTH];
    (&kernel.file).read_exact(&mut bytes).map_err(|_| not_a_kernel())?;
    let header = KernelHeader::parse(&bytes).ok_or_else(not_a_kernel)?;
    io::Seek::rewind(&mut kernel.file)
        .map_err(|source| BootError::Read { path: kernel.path.to_owned(), source })?;
    let mut initrd = initrd.map(Piece::open).transpose()?;

    let length = initrd.as_ref().map(|initrd| initrd.length);
    let layout = Layout::plan(&header, kernel.length, length, size)?;
    kernel.load(memory, layout.kernel)?;
    if let (Some(initrd), Some((start, _))) = (&mut initrd, layout.initrd) {
        initrd.load(memory, start)?;
    }
    Ok(layout)
}

/// Writes the device tree where `layout` keeps room for it.
pub(crate) fn write_tree(
    memory: &GuestMemoryMmap,
    layout: &Layout,
    tree: &[u8],
) -> Result<(), BootError> {
    if tree.len() as u64 > TREE_ROOM {
        return Err(BootError::DeviceTree(vm_fdt::Error::TotalSizeTooLarge));
    }
    memory.write_slice(tree, GuestAddress(layout.device_tree)).map_err(BootError::Storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; 64] {
        let mut header = [0; 64];
        header[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
        header[16..24].copy_from_slice(&0x100_0000u64.to_le_bytes());
        header[48..56].copy_from_slice(b"RISCV\0\0\0");
        header[56..60].copy_from_slice(b"RSC\x05");
        header
    }

    #[test]
    fn a_header_without_its_magic_is_not_a_kernel() {
        assert_eq!(
            KernelHeader::parse(&header()),
            Some(KernelHeader { text_offset: 0x20_0000, image_size: 0x100_0000 })
        );
        let mut broken = header();
        broken[57] = 0;
        assert_eq!(KernelHeader::parse(&broken), None);
    }

    #[test]
    fn nothing_overlaps_and_all_fits_or_it_is_refused() {
        let header = KernelHeader { text_offset: 0x20_0000, image_size: 0x100_0000 };
        let layout = Layout::plan(&header, 0xf0_0000, Some(5000), 64 << 20).unwrap();
        let (start, end) = layout.initrd.unwrap();
        assert_eq!(end - start, 5000);
        assert!(layout.kernel + 0x100_0000 <= start && end <= layout.device_tree);
        assert!(layout.device_tree + TREE_ROOM <= STORAGE_BASE + (64 << 20));
        assert!(matches!(
            Layout::plan(&header, 0xf0_0000, Some(5000), 16 << 20),
            Err(BootError::TooSmall { .. })
        ));
        let hostile = KernelHeader { text_offset: u64::MAX, image_size: u64::MAX };
        assert!(Layout::plan(&hostile, 1, None, 64 << 20).is_err());
    }
}
