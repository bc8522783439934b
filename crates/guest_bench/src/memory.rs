//! Programs of main storage.

use std::hint::black_box;

use crate::programs::{Random, mix};

/// Follows a chain that visits every place of 1 MiB in a random order.
pub(crate) fn pointers(work: u32) -> u64 {
    const PLACES: usize = 1 << 18;
    let mut next: Vec<u32> = (0..PLACES as u32).collect();
    let mut random = Random(99);
    // Sattolo's shuffle: the result is one single cycle.
    for i in (1..PLACES).rev() {
        next.swap(i, random.next() as usize % i);
    }
    let mut at = 0_u32;
    let mut sum = 1;
    for step in 0..work * 15_000 {
        at = next[at as usize];
        if step % 1024 == 0 {
            sum = mix(sum, u64::from(at));
        }
    }
    sum
}

/// Copies 1 MiB back and forth.
pub(crate) fn copies(work: u32) -> u64 {
    let mut random = Random(3);
    let mut from: Vec<u8> = (0..1 << 20).map(|_| random.next() as u8).collect();
    let mut to = vec![0; from.len()];
    for round in 0..work * 8 {
        black_box(&mut to).copy_from_slice(black_box(&from));
        to[round as usize] ^= 0x5a;
        std::mem::swap(&mut from, &mut to);
    }
    from.iter().step_by(61).fold(u64::from(work), |sum, byte| mix(sum, u64::from(*byte)))
}
