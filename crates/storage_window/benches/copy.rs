//! Prints copy throughput of a relocation beside `memcpy`: see
//! `storage_window::bench`. Medians of 15 rounds; machines are noisy.

const M: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{:>22} {:>8} {:>8} {:>8} {:>7} {:>9} {:>9}",
        "", "memcpy", "pages", "move", "ratio", "pause", "remap"
    );
    for (name, size, distance) in [
        ("256M by 64M (overlap)", 256 * M, 64 * M),
        ("256M by 1M (overlap)", 256 * M, M),
        ("256M by 256M", 256 * M, 256 * M),
        ("64M by 128M", 64 * M, 128 * M),
    ] {
        let bench = storage_window::bench::copy(size, distance, 15)?;
        println!(
            "{name:>22} {:>5.1}G/s {:>5.1}G/s {:>5.1}G/s {:>7.2} {:>6.1} ms {:>6.0} us",
            bench.memcpy / 1e9,
            bench.page_wise / 1e9,
            bench.relocation / 1e9,
            bench.relocation_vs_memcpy,
            bench.pause_us / 1e3,
            bench.remap_us
        );
    }
    Ok(())
}
