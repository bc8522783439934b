//! How long it takes to plan a compaction: `cargo bench -p main_storage`.
//!
//! Each row is the slowest of ten maps. Promised: under 100 ms for 1,000
//! partitions.

use std::time::{Duration, Instant};

use main_storage::{BLOCK_SIZE, PartitionName, StorageMap, StorageRange};

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// `count` partitions of up to `largest` blocks, with gaps here and there; and
/// the names of those that may not be moved, one in `fixed_one_in`.
fn map(
    numbers: &mut Numbers,
    count: u64,
    largest: u64,
    fixed_one_in: Option<u64>,
) -> Option<(StorageMap, Vec<PartitionName>)> {
    let mut map = StorageMap::new(count * (largest + 1) * BLOCK_SIZE * 2).ok()?;
    let mut fixed = Vec::new();
    let mut origin = 0;
    for index in 0..count {
        origin += numbers.below(3) / 2 * numbers.below(largest);
        let size = 1 + numbers.below(largest);
        let name = PartitionName::new(&format!("p{index}")).ok()?;
        let range = StorageRange::new(origin * BLOCK_SIZE, size * BLOCK_SIZE).ok()?;
        if fixed_one_in.is_some_and(|one_in| numbers.below(one_in) == 0) {
            fixed.push(name.clone());
        }
        map.assign(name, range).ok()?;
        origin += size;
    }
    // Main storage ends where the last partition does, or a little behind.
    let mut tight = StorageMap::new((origin + numbers.below(4)) * BLOCK_SIZE).ok()?;
    for partition in map.partitions() {
        tight.assign(partition.name().clone(), partition.range()).ok()?;
    }
    Some((tight, fixed))
}

fn main() {
    println!("{:<44}{:>12}{:>8}{:>14}", "ten maps", "slowest", "plans", "proven least");
    for (count, largest) in [(8, 8), (8, 64), (8, 4096), (1000, 64), (1000, 4096)] {
        for fixed_one_in in [None, Some(5)] {
            for (share, wanted) in [(1, "all free"), (2, "half of it"), (10, "a tenth")] {
                let mut numbers = Numbers(count + largest);
                let mut slowest = Duration::ZERO;
                let (mut found, mut proven) = (0, 0);
                for _ in 0..10 {
                    let Some((map, fixed)) = map(&mut numbers, count, largest, fixed_one_in) else {
                        continue;
                    };
                    let free: u64 = map.gaps().iter().map(|gap| gap.size()).sum();
                    let size = (free / share / BLOCK_SIZE).max(1) * BLOCK_SIZE;
                    let start = Instant::now();
                    let plan = map.plan_compact(Some(size), &fixed);
                    slowest = slowest.max(start.elapsed());
                    found += u32::from(plan.is_ok());
                    proven += u32::from(plan.is_ok_and(|plan| plan.is_least()));
                }
                let fixed = fixed_one_in.map_or(String::new(), |_| ", some fixed".to_owned());
                let what = format!("{count} to {largest}M{fixed}, {wanted}");
                let slowest = slowest.as_secs_f64() * 1e3;
                println!("{what:<44}{slowest:>9.2} ms{found:>8}{proven:>14}");
            }
        }
    }
}
