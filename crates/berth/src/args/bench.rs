//! What is measured.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Moves and exchanges beside plain memcpy, a bare loop and QEMU
    ///
    /// First the copies alone, then guests of 256M and 2G that write their
    /// memory and watch their clock while they are moved; then the same guest
    /// in two QEMUs, migrated from one to the other (needs
    /// qemu-system-riscv64; Debian: qemu-system-misc). Takes some minutes and
    /// 5G of memory. docs/benchmarks.md says what each row means.
    #[command(
        after_help = "Examples:\n  berth bench move --rounds 15\n  berth bench move --no-guests"
    )]
    Move {
        /// How often; the figures are medians
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Only the copies: no guests, no QEMU
        #[arg(long)]
        no_guests: bool,
    },
    /// Conversations with machines of a pool
    ///
    /// Starts a host of its own with a pool of machines of 128M and allocates,
    /// resets and makes them. Takes about a minute and 2G of main storage.
    /// docs/benchmarks.md says what each row means.
    #[command(after_help = "Example:\n  berth bench pool --rounds 9")]
    Pool {
        /// How often; 40 conversations one after another in each
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
    },
    /// The operator's interface and the console's page, while much changes
    ///
    /// A host of its own has 200 partitions in which nothing runs; they are
    /// moved on the map 100 times a second. For the page's row it needs Chromium
    /// (Debian: chromium). docs/benchmarks.md says what each row means.
    #[command(after_help = "Example:\n  berth bench api --seconds 20")]
    Api {
        /// How long, with changes and without
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
    /// Connections to a user's database beside the server's own
    ///
    /// Starts a host of its own with one machine, whose user is the role at a server
    /// that is there already. docs/benchmarks.md says what each row means.
    #[command(
        after_help = "Example:\n  berth bench database --server /run/postgresql --database mail --role alice --credentials passwords"
    )]
    Database(DatabaseBench),
    /// Files of the host's, in Berth and in QEMU
    ///
    /// The same guest reads and writes by the file manager and by QEMU's virtio-fs
    /// (needs qemu-system-riscv64 and virtiofsd; Debian: qemu-system-misc, and
    /// virtiofsd where that is a package of its own). Ratios are of speeds: above 1 is
    /// faster than QEMU. docs/benchmarks.md says what each row means.
    #[command(after_help = "Example:\n  berth bench files --rounds 5")]
    Files {
        /// How often, in both by turns; the figures are medians
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
    },
    /// The same guest programs in Berth and in QEMU
    ///
    /// Needs qemu-system-riscv64 for the reference (Debian: qemu-system-misc).
    /// `cpu.boot_vs_qemu` is a ratio of times (below 1 is faster than QEMU),
    /// `cpu.speed_vs_qemu.PROGRAM` one of speeds (above 1 is faster).
    #[command(after_help = "Example:\n  berth bench cpu --json")]
    Cpu {
        /// Interpret guest code, compile none of it
        #[arg(long)]
        interpret: bool,
        /// Only this program, which may be said several times
        #[arg(long, value_name = "PROGRAM")]
        only: Vec<String>,
        /// How much of their work the programs do, in hundredths
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=2000))]
        work: u32,
    },
}

/// The server that connections are measured with.
#[derive(Debug, Args)]
pub(crate) struct DatabaseBench {
    /// As in [database] of a host file
    #[arg(long, value_name = "SERVER")]
    pub(crate) server: String,
    /// The database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: String,
    /// The role, which can log in and become no other
    #[arg(long, value_name = "NAME")]
    pub(crate) role: String,
    /// File of passwords, as in [database]
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// Certificates that vouch for the server, as in [database]
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: Option<PathBuf>,
    /// How often; 20 connections one after another in each
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
}
