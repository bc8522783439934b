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
    println!(
        "\n{:>22} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9}",
        "live", "memcpy", "slide", "ratio", "pause", "floor", "flight"
    );
    for (name, size, distance) in [
        ("256M by 64M (overlap)", 256 * M, 64 * M),
        ("256M by 1M (overlap)", 256 * M, M),
        ("256M by 256M", 256 * M, 256 * M),
        ("2G by 64M (overlap)", 2048 * M, 64 * M),
    ] {
        let bench = storage_window::bench::slide(size, distance, 15)?;
        println!(
            "{name:>22} {:>5.1}G/s {:>5.1}G/s {:>7.2} {:>6.0} us {:>6.0} us {:>6.0} us",
            bench.memcpy / 1e9,
            bench.slide / 1e9,
            bench.slide_vs_memcpy,
            bench.pause_us,
            bench.floor_us,
            bench.flight_us,
        );
    }
    let bench = storage_window::bench::exchange(256 * M, 15)?;
    println!(
        "\nexchange of two 256M: loop {:.1}G/s, exchange {:.1}G/s, ratio {:.2}, pause {:.1} ms",
        bench.bare_loop / 1e9,
        bench.exchange / 1e9,
        bench.exchange_vs_loop,
        bench.pause_us / 1e3
    );
    Ok(())
}
