//! What is to be run, in words of the kernel's command line or of its own.

use std::fs;

use crate::{programs, sys};

const ONLY: &str = "bench.only=";
const WORK: &str = "bench.work=";

/// What the command line says.
pub(crate) struct Words {
    /// Names of programs; empty for all.
    only: Vec<String>,
    /// Hundredths of each program's full work.
    pub(crate) work: u32,
}

/// The kernel's command line; empty if nobody says.
pub(crate) fn of_kernel() -> String {
    let _ = sys::mount_new(c"proc", c"/proc", c"proc");
    fs::read_to_string("/proc/cmdline").unwrap_or_default()
}

impl Words {
    /// The first process reads the kernel's line, any other its arguments.
    pub(crate) fn read() -> Self {
        if std::process::id() == 1 {
            Self::of(of_kernel().split_whitespace())
        } else {
            let own: Vec<String> = std::env::args().collect();
            Self::of(own.iter().map(String::as_str))
        }
    }

    fn of<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self { only: Vec::new(), work: programs::FULL };
        for word in words {
            if let Some(names) = word.strip_prefix(ONLY) {
                found.only = names.split(',').map(str::to_owned).collect();
            } else if let Some(Ok(work)) = word.strip_prefix(WORK).map(str::parse) {
                found.work = work;
            }
        }
        found
    }

    /// Whether the program with this name is to be run.
    pub(crate) fn want(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_programs_are_run_unless_some_are_named() {
        let all = Words::of(["quiet", "bench.onlyy=a"].into_iter());
        assert!(all.want("sieve") && all.want("fork"));
        assert_eq!(all.work, programs::FULL);
        let some = Words::of(["bench.only=sieve,fork", "bench.work=250"].into_iter());
        assert!(some.want("sieve") && some.want("fork") && !some.want("matrix"));
        assert_eq!(some.work, 250);
    }
}
