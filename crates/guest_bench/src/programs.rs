//! The list of programs.
//!
//! A program takes how much of its full work to do, in hundredths, and returns
//! a checksum of everything it computed.

use crate::{integer, machine, memory, numeric, strings};

/// All of a program's work.
pub(crate) const FULL: u32 = 100;

type Program = fn(u32) -> u64;

/// Names and programs, in the order they run.
pub(crate) const ALL: [(&str, Program); 16] = [
    ("integer", integer::mixed),
    ("records", integer::records),
    ("sieve", integer::sieve),
    ("quicksort", integer::quicksort),
    ("sha256", strings::sha256),
    ("hashing", strings::hashing),
    ("calls", integer::calls),
    ("bytecode", integer::bytecode),
    ("matrix", numeric::matrix),
    ("nbody", numeric::nbody),
    ("mandelbrot", numeric::mandelbrot),
    ("pointers", memory::pointers),
    ("memcpy", memory::copies),
    ("syscalls", machine::syscalls),
    ("faults", machine::faults),
    ("fork", machine::forks),
];

/// Mixes `value` into a running checksum (FNV-1a on whole words).
pub(crate) fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
}

/// Numbers that repeat from run to run (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_computes_the_same_twice() {
        for (name, program) in ALL {
            assert_eq!(program(1), program(1), "{name}");
        }
    }

    #[test]
    fn more_work_is_more_than_the_same_work() {
        for (name, program) in ALL {
            assert_ne!(program(1), program(5), "{name} does not look at how much it is asked for");
        }
    }
}
