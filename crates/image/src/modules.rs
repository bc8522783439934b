//! Kernel modules: where they lie, what they depend on, in which order they
//! must be loaded.

use std::collections::BTreeMap;

/// What every guest loads. The name is the file's, without `.ko`.
pub(crate) const ALWAYS: [&str; 5] =
    ["virtio_mmio", "virtio_blk", "virtio-rng", "squashfs", "overlay"];

/// What a guest with a data disk loads besides.
pub(crate) const DISK: [&str; 1] = ["ext4"];

/// What ext4 asks for at run time without naming it as a dependency, in
/// kernels that have it as a module.
pub(crate) const DISK_OPTIONAL: [&str; 1] = ["crc32c_generic"];

/// Modules by name, `-` and `_` being the same, with their dependencies.
pub(crate) type Dependencies = BTreeMap<String, Vec<String>>;

/// A module's name in the spelling that dependencies use.
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads `modules.dep`: `path.ko[.xz]: path path …`.
#[cfg(test)]
fn parse_dep(text: &str) -> Dependencies {
    let name = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        canonical(file.split(".ko").next().unwrap_or(file))
    };
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (name(module), needs.split_whitespace().map(name).collect()))
        .collect()
}

/// The modules that `elf` names in `depends=` of its `.modinfo` section, as
/// `depmod` would; packages hold no `modules.dep`, which is made at
/// installation.
pub(crate) fn depends(elf: &[u8]) -> Option<Vec<String>> {
    let info = section(elf, b".modinfo")?;
    let value = info.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(b"depends="))?;
    let text = std::str::from_utf8(value).ok()?;
    Some(text.split(',').filter(|name| !name.is_empty()).map(canonical).collect())
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let value = field.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    usize::try_from(value).ok()
}

/// A section of a little-endian 64-bit ELF file.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, entry_size) = (number(elf, 0x28, 8)?, number(elf, 0x3a, 2)?);
    let (count, names_index) = (number(elf, 0x3c, 2)?, number(elf, 0x3e, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(entry_size)?);
    let body = |at: usize| {
        let field = |offset| number(elf, at.checked_add(offset)?, 8);
        let (start, size) = (field(0x18)?, field(0x20)?);
        elf.get(start..start.checked_add(size)?)
    };
    let names = body(header(names_index)?)?;
    (0..count).find_map(|index| {
        let at = header(index)?;
        let name = names.get(number(elf, at, 4)?..)?;
        (name.split(|&byte| byte == 0).next() == Some(wanted)).then(|| body(at))?
    })
}

/// `wanted` and all they need, each after what it needs. What is not among
/// `known` is built into the kernel and needs no loading.
pub(crate) fn load_order(wanted: &[&str], known: &Dependencies) -> Vec<String> {
    fn visit(name: &str, known: &Dependencies, seen: &mut Vec<String>, order: &mut Vec<String>) {
        if seen.iter().any(|other| other == name) {
            return;
        }
        seen.push(name.to_owned());
        if let Some(needs) = known.get(name) {
            for need in needs {
                visit(need, known, seen, order);
            }
            order.push(name.to_owned());
        }
    }
    let (mut seen, mut order) = (Vec::new(), Vec::new());
    for name in wanted {
        visit(&canonical(name), known, &mut seen, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz\n\
                       kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\nkernel/fs/mbcache.ko.xz:\n\
                       kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/char/hw_random/rng-core.ko.xz\n\
                       kernel/drivers/char/hw_random/rng-core.ko.xz:\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let known = parse_dep(DEP);
        let order = load_order(&["ext4", "jbd2", "virtio-rng"], &known);
        assert_eq!(order, ["jbd2", "crc16", "mbcache", "ext4", "rng_core", "virtio_rng"]);
    }

    #[test]
    fn a_built_in_module_is_left_out_and_a_circle_ends() {
        let known = parse_dep("a.ko: b.ko\nb.ko: a.ko virtio.ko\n");
        assert_eq!(load_order(&["a", "virtio"], &known), ["b", "a"]);
    }

    #[test]
    fn damaged_modules_are_told_from_good_ones() {
        assert_eq!(depends(b""), None);
        assert_eq!(depends(b"\x7fELF\x02\x01 short"), None);
        let mut elf = vec![0_u8; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28..0x30].copy_from_slice(&u64::MAX.to_le_bytes());
        elf[0x3a..0x40].copy_from_slice(&[64, 0, 1, 0, 0, 0]);
        assert_eq!(depends(&elf), None);
    }
}
