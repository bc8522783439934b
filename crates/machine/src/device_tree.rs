//! The flattened device tree that tells the guest what machine it is on
//! (Devicetree Specification 0.4; bindings as in the Linux kernel).

use vm_fdt::{FdtWriter, FdtWriterResult};

use main_storage::PAGE_SIZE;

use crate::memory_map::{
    KEY_UNIT_PAGES, KEY_UNIT_PENDING, KEY_UNIT_RESET, PLIC_BASE, PLIC_SIZE, STORAGE_BASE,
    VIRTIO_BASE, VIRTIO_STRIDE, interrupt_of_slot,
};

/// What the tree depends on.
pub(crate) struct Description<'a> {
    pub(crate) vcpus: u32,
    /// Bytes of storage from [`STORAGE_BASE`].
    pub(crate) storage: u64,
    pub(crate) command_line: &'a str,
    /// Guest physical start and end of the initial ramdisk.
    pub(crate) initrd: Option<(u64, u64)>,
    pub(crate) io_processors: usize,
    /// Mixed into the guest's random number generator at boot.
    pub(crate) rng_seed: &'a [u8],
}

/// The extensions of the software CPU, in canonical order.
const ISA_EXTENSIONS: [&str; 14] = [
    "i", "m", "a", "f", "d", "c", "zicntr", "zicsr", "zifencei", "zba", "zbb", "zbs", "sstc",
    "svadu",
];

const PHANDLE_PLIC: u32 = 1;
/// The interrupt controller of hart `h` has phandle `PHANDLE_HART + h`.
const PHANDLE_HART: u32 = 16;
/// Supervisor external interrupt, as in `scause`.
const SUPERVISOR_EXTERNAL: u32 = 9;

/// Writes the tree.
pub(crate) fn write(d: &Description<'_>) -> FdtWriterResult<Vec<u8>> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "berth,riscv64")?;
    fdt.property_string("model", "Berth")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    chosen(&mut fdt, d)?;

    let memory = fdt.begin_node(&format!("memory@{STORAGE_BASE:x}"))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[STORAGE_BASE, d.storage])?;
    fdt.end_node(memory)?;

    cpus(&mut fdt, d.vcpus)?;

    let soc = fdt.begin_node("soc")?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    plic(&mut fdt, d.vcpus)?;
    for slot in 0..d.io_processors {
        virtio_slot(&mut fdt, slot)?;
    }
    key_unit(&mut fdt)?;
    fdt.end_node(soc)?;

    fdt.end_node(root)?;
    fdt.finish()
}

fn chosen(fdt: &mut FdtWriter, d: &Description<'_>) -> FdtWriterResult<()> {
    let chosen = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", d.command_line)?;
    fdt.property("rng-seed", d.rng_seed)?;
    if let Some((start, end)) = d.initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    fdt.end_node(chosen)
}

fn cpus(fdt: &mut FdtWriter, vcpus: u32) -> FdtWriterResult<()> {
    let extensions: Vec<String> = ISA_EXTENSIONS.iter().map(ToString::to_string).collect();
    // The old one-string form: single letters run together, the rest joined by `_`.
    let isa = ISA_EXTENSIONS.iter().fold("rv64".to_owned(), |isa, extension| {
        let joint = if extension.len() > 1 { "_" } else { "" };
        isa + joint + extension
    });
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    // At most 10 MHz today, well inside 32 bits; the binding wants one cell.
    #[expect(clippy::cast_possible_truncation, reason = "a constant that fits")]
    fdt.property_u32("timebase-frequency", engine::riscv::TIMEBASE_HZ as u32)?;
    for hart in 0..vcpus {
        let cpu = fdt.begin_node(&format!("cpu@{hart}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", hart)?;
        fdt.property_string("status", "okay")?;
        fdt.property_string("compatible", "riscv")?;
        fdt.property_string("riscv,isa", &isa)?;
        fdt.property_string("riscv,isa-base", "rv64i")?;
        fdt.property_string_list("riscv,isa-extensions", extensions.clone())?;
        fdt.property_string("mmu-type", "riscv,sv48")?;
        let intc = fdt.begin_node("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_string("compatible", "riscv,cpu-intc")?;
        fdt.property_phandle(PHANDLE_HART + hart)?;
        fdt.end_node(intc)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

fn plic(fdt: &mut FdtWriter, vcpus: u32) -> FdtWriterResult<()> {
    let contexts: Vec<u32> =
        (0..vcpus).flat_map(|hart| [PHANDLE_HART + hart, SUPERVISOR_EXTERNAL]).collect();
    let plic = fdt.begin_node(&format!("interrupt-controller@{PLIC_BASE:x}"))?;
    fdt.property_string_list("compatible", vec!["sifive,plic-1.0.0".into(), "riscv,plic0".into()])?;
    fdt.property_array_u64("reg", &[PLIC_BASE, PLIC_SIZE])?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_array_u32("interrupts-extended", &contexts)?;
    fdt.property_u32("riscv,ndev", 31)?;
    fdt.property_phandle(PHANDLE_PLIC)?;
    fdt.end_node(plic)
}

fn virtio_slot(fdt: &mut FdtWriter, slot: usize) -> FdtWriterResult<()> {
    let address = VIRTIO_BASE + slot as u64 * VIRTIO_STRIDE;
    let node = fdt.begin_node(&format!("virtio_mmio@{address:x}"))?;
    fdt.property_string("compatible", "virtio,mmio")?;
    fdt.property_array_u64("reg", &[address, VIRTIO_STRIDE])?;
    fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
    fdt.property_u32("interrupts", interrupt_of_slot(slot))?;
    fdt.end_node(node)
}

/// For programs that look for it; no driver claims it.
fn key_unit(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    let start = KEY_UNIT_PENDING & !(PAGE_SIZE - 1);
    let node = fdt.begin_node(&format!("storage-keys@{start:x}"))?;
    fdt.property_string("compatible", "berth,storage-keys")?;
    fdt.property_array_u64("reg", &[start, KEY_UNIT_RESET + KEY_UNIT_PAGES - start])?;
    fdt.end_node(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_well_formed_and_names_every_part() {
        let tree = write(&Description {
            vcpus: 2,
            storage: 128 << 20,
            command_line: "console=hvc0",
            initrd: Some((0x8700_0000, 0x8710_0000)),
            io_processors: 3,
            rng_seed: &[7; 32],
        })
        .unwrap();
        assert_eq!(tree[..4], 0xd00d_feed_u32.to_be_bytes());
        let text = String::from_utf8_lossy(&tree);
        for part in [
            "memory@80000000",
            "cpu@1",
            "rv64imafdc_zicntr_zicsr_zifencei_zba_zbb_zbs_sstc_svadu",
            "interrupt-controller@c000000",
            "virtio_mmio@10003000",
            "storage-keys@1ffff000",
            "console=hvc0",
        ] {
            assert!(text.contains(part), "{part} is missing");
        }
    }
}
