//! Just enough of ELF64 to load a statically linked test program.

/// One program: where it begins, what it fills, where a symbol is.
pub(crate) struct Program<'a> {
    file: &'a [u8],
}

impl<'a> Program<'a> {
    /// `None` if `file` is no little-endian ELF64 file for RISC-V.
    pub(crate) fn new(file: &'a [u8]) -> Option<Self> {
        let riscv = file.get(18..20)? == [243, 0];
        (file.starts_with(b"\x7fELF\x02\x01") && riscv).then_some(Self { file })
    }

    fn number(&self, at: usize, size: usize) -> usize {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.file[at..at + size]);
        usize::from_le_bytes(bytes)
    }

    /// Where execution begins.
    pub(crate) fn entry(&self) -> u64 {
        self.number(24, 8) as u64
    }

    /// The bytes to load, with their physical addresses.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let (table, size, count) = (self.number(32, 8), self.number(54, 2), self.number(56, 2));
        (0..count).filter_map(move |index| {
            let header = table + index * size;
            let (offset, length) = (self.number(header + 8, 8), self.number(header + 32, 8));
            let loadable = self.number(header, 4) == 1 && length != 0;
            loadable
                .then(|| (self.number(header + 24, 8) as u64, &self.file[offset..offset + length]))
        })
    }

    /// The value of the symbol `name`.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        let (table, size, count) = (self.number(40, 8), self.number(58, 2), self.number(60, 2));
        let section = |index: usize| table + index * size;
        let symbols = (0..count).map(section).find(|&at| self.number(at + 4, 4) == 2)?;
        let strings = self.number(section(self.number(symbols + 40, 4)) + 24, 8);
        let (first, length) = (self.number(symbols + 24, 8), self.number(symbols + 32, 8));
        (first..first + length).step_by(24).find_map(|symbol| {
            let at = strings + self.number(symbol, 4);
            let found =
                self.file[at..].starts_with(name.as_bytes()) && self.file[at + name.len()] == 0;
            found.then(|| self.number(symbol + 8, 8) as u64)
        })
    }
}
