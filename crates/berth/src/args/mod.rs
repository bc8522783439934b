//! The command line as clap reads it.

mod access;
mod bench;
mod machines;
mod partitions;
mod programs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use access::{
    ApiCommand, AuditArgs, DatabaseCommand, DatabaseGrant, FilesCommand, RoleArg, UserCommand,
};
pub(crate) use bench::{BenchCommand, DatabaseBench};
use machines::UP_EXAMPLES;
pub(crate) use machines::{ImageCommand, PoolCommand, UpArgs};
use partitions::CREATE_EXAMPLES;
pub(crate) use partitions::{
    CompactArgs, CreateArgs, ExchangeArgs, ExpandArgs, MoveArgs, NameArg, ShrinkArgs, StopArgs,
};
use programs::{ALLOCATE_EXAMPLES, EXEC_EXAMPLES};
pub(crate) use programs::{AllocateArgs, ExecArgs, Sync};

const ABOUT: &str = "\
Virtual machines that live in one main storage and move while they run.

A first session:

  berth up -f examples/worked-example/berth.toml --detach
  berth status
  berth exec lpar2 -- uname -a
  berth move lpar2 --to 192M
  berth down

Sizes are written 128M, 1G, or in bytes. Every command has --json for programs.
Exit status: 0 done, 1 refused or failed, 2 wrong usage.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "berth", version, about = "Virtual machines that move while they run", long_about = ABOUT)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print JSON on standard output, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where the host keeps its state [default: $XDG_STATE_HOME/berth, else ~/.local/state/berth]
    #[arg(long, global = true, value_name = "DIR", env = "BERTH_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Another host than the one on this machine: stands before the command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Another host than the one on this machine (before the command)")]
pub(crate) struct Remote {
    /// Its address, https://NAME:PORT, as `listen` in [api] of its host file
    #[arg(long, value_name = "URL", env = "BERTH_HOST", hide_env_values = true)]
    pub(crate) host: Option<String>,
    /// File of the certificate that vouches for it (its api.crt)
    #[arg(long, value_name = "FILE", env = "BERTH_CA", hide_env_values = true)]
    pub(crate) ca: Option<PathBuf>,
    /// File with a token of it; or the token itself in BERTH_TOKEN
    #[arg(long, value_name = "FILE", env = "BERTH_TOKEN_FILE", hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// File of a client's certificate (PEM), instead of a token
    ///
    /// One that an authority of the host's `client_authorities` gave, and in its file of
    /// `clients` by name or fingerprint: there stands what its bearer may do. Those
    /// that vouch for the certificate follow it in the file, if there are any between.
    ///
    ///   berth --host https://berth.example:7601 --ca api.crt \
    ///     --certificate me.crt --key me.key status
    #[arg(
        long,
        value_name = "FILE",
        env = "BERTH_CERTIFICATE",
        hide_env_values = true,
        requires = "key",
        verbatim_doc_comment
    )]
    pub(crate) certificate: Option<PathBuf>,
    /// File of the certificate's key (PEM, not encrypted)
    #[arg(
        long,
        value_name = "FILE",
        env = "BERTH_KEY",
        hide_env_values = true,
        requires = "certificate"
    )]
    pub(crate) key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the host with its partitions
    ///
    /// Reads the host file, builds the guest images that are missing, makes
    /// main storage and starts every partition that has not `autostart =
    /// false`. If a host was killed here, its guests have gone on: they are
    /// taken over where they are, and the commands it was at are finished or
    /// undone. Needs no root. In the foreground it shows what happens until
    /// Ctrl-C; with --detach it returns once every one of these guests serves
    /// commands.
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// End the host and all its guests
    ///
    /// Every guest is asked to power off and made to after 10 seconds. Also
    /// ends guests whose host was killed, and forgets what that host knew: the
    /// next `berth up` begins from the host file.
    #[command(after_help = "Example:\n  berth down")]
    Down,
    /// Show main storage and who is in it
    #[command(after_help = "Examples:\n  berth status\n  berth status --json")]
    Status,
    /// Show main storage and pools as they change; q leaves
    #[command(after_help = "Example:\n  berth top")]
    Top,
    /// Look at what a host needs, and say what is wrong
    ///
    /// Exit status 1 if anything is.
    #[command(after_help = "Examples:\n  berth doctor\n  berth doctor --json")]
    Doctor,
    /// Show service pools and their machines, or have a hand on them
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Open the web console in a browser on this host
    ///
    /// Prints a link that is good once and for two minutes; whoever follows it
    /// stays let in for twelve hours, at most until the host ends. The host
    /// listens on a port of the loopback from then on. To come in from
    /// elsewhere, write `listen` into [api] of the host file.
    #[command(after_help = "Examples:\n  berth open\n  berth open --role viewer")]
    Open {
        /// What the browser may do
        #[arg(long, value_enum, default_value_t = RoleArg::Administrator)]
        role: RoleArg,
    },
    /// Tokens for the HTTP interface, and its description
    #[command(subcommand)]
    Api(ApiCommand),
    /// Show who wore which machine, and who was refused; the newest first
    #[command(after_help = "Examples:\n  berth audit\n  berth audit alice --limit 200 --json")]
    Audit(AuditArgs),
    /// Keep the users who come in with a password
    ///
    /// The host reads the users file anew for each of them.
    #[command(subcommand)]
    User(UserCommand),
    /// Say who may reach which users' files
    ///
    /// A user has a space of files of his own, which machines of pools with `files =
    /// true` show at /files while they are his. A change counts at once, also where
    /// files are open.
    #[command(subcommand)]
    Files(FilesCommand),
    /// Say who is which role of which database
    ///
    /// Programs in machines of pools with `database = true` connect to `database`, or
    /// to the usual socket, without a password, and are the role that their machine's
    /// user has here. A change counts at once: connections that it does not give any
    /// more end.
    #[command(subcommand)]
    Database(DatabaseCommand),
    /// Make a partition while the host runs
    ///
    /// It lives in the smallest gap that is large enough, or where --origin
    /// says. It is not written to the host file, but the host knows it until
    /// `berth down`.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Delete a stopped partition, and its data disk
    #[command(
        after_help = "Examples:\n  berth delete ci\n  berth stop ci && berth delete ci --json"
    )]
    Delete(NameArg),
    /// Start a partition
    #[command(after_help = "Example:\n  berth start lpar1")]
    Start(NameArg),
    /// Stop a partition; its range stays reserved for it
    #[command(after_help = "Examples:\n  berth stop lpar1\n  berth stop lpar1 --now")]
    Stop(StopArgs),
    /// Stop a partition and start it anew
    #[command(after_help = "Example:\n  berth restart lpar1")]
    Restart(StopArgs),
    /// Move a partition to another origin in main storage
    ///
    /// Its guest runs on while its storage is copied chunk by chunk with its
    /// storage keys, and waits only if it writes to the chunk in flight; then
    /// it is stopped for a moment, in which its devices are told their new
    /// range. It is not restarted. The new range may overlap the old one, but
    /// no other partition. A refusal changes nothing. A partition that does
    /// not run moves on the map alone.
    #[command(
        after_help = "Examples:\n  berth move lpar2 --to 192M\n  berth move lpar2 --to 192M --dry-run\n  berth move lpar2 --to 192M --mode stop"
    )]
    Move(MoveArgs),
    /// Let two partitions change places
    ///
    /// Both guests are stopped, their storage is swapped page by page with its
    /// storage keys through a small buffer, and both go on: no third range is
    /// needed, so it works in a full main storage. Of different size, the
    /// larger one must fit where the smaller one was and into the free storage
    /// around it.
    #[command(
        after_help = "Examples:\n  berth exchange lpar1 lpar2\n  berth exchange lpar1 lpar2 --dry-run"
    )]
    Exchange(ExchangeArgs),
    /// Give a partition more storage while its guest runs
    ///
    /// The partition takes a part of the gap behind it, and its guest gets the
    /// memory at once, in steps of 2 MiB. With --make-room, whoever is in the
    /// way is moved first, with as little copying as possible. All or nothing:
    /// a guest that does not take the memory leaves the partition as it was.
    #[command(
        after_help = "Examples:\n  berth expand lpar1 --by 64M\n  berth expand lpar1 --to 256M --make-room\n  berth expand lpar1 --by 64M --make-room --dry-run"
    )]
    Expand(ExpandArgs),
    /// Take storage from a partition while its guest runs
    ///
    /// The guest gives back what it can, at most down to what it booted in;
    /// the rest is named.
    #[command(after_help = "Example:\n  berth shrink lpar1 --to 128M")]
    Shrink(ShrinkArgs),
    /// Move partitions together so that there is one free range
    ///
    /// Shows its plan, the one that copies least, and then moves one partition
    /// after the other while their guests run. Ctrl-C ends it after the move
    /// in hand; what was moved stays where it is.
    #[command(
        after_help = "Examples:\n  berth compact --dry-run\n  berth compact --free 256M\n  berth compact"
    )]
    Compact(CompactArgs),
    /// Run a command in a guest
    ///
    /// Standard input, output and error are the command's; its exit status is
    /// this program's (128 + n if signal n ended it). Waits for a guest that is
    /// still starting. Signals go to the command; a second Ctrl-C leaves one that
    /// does not end, SIGTERM and SIGHUP after ten seconds.
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(ExecArgs),
    /// Talk to a program in a machine of a service pool
    ///
    /// Asks for a free machine of the pool and joins standard input and output
    /// to the program there, under the user's id. When the input ends the
    /// program is told; when the program has ended and the machine has
    /// confirmed that, this ends. On the local socket you are believed to be
    /// who you are; --password-file or --token-file prove it elsewhere.
    #[command(after_help = ALLOCATE_EXAMPLES)]
    Allocate(AllocateArgs),
    /// Attach to a guest's console; Ctrl-] detaches
    ///
    /// Shows the last 64 KiB first. The guest goes on when you detach.
    #[command(after_help = "Example:\n  berth console lpar1")]
    Console(NameArg),
    /// Build, list and remove guest images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Show the patent's worked example, live
    ///
    /// Starts main storage of 509 MB with two Debian guests as in Fig. 3A,
    /// moves one of them to where Fig. 4A has it while a program in it checks
    /// its own memory, disk and clock, and prints the guest's own proof that
    /// it never stopped. With --full it goes on: expand into the gap, exchange
    /// in a full main storage, shrink and compact, both guests checking
    /// themselves. Uses a state directory of its own and cleans up.
    #[command(after_help = "Examples:\n  berth demo\n  berth demo --full")]
    Demo {
        /// Every command on main storage, not only the move
        #[arg(long)]
        full: bool,
    },
    /// Measure this host, beside a peer or a limit
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  berth completion bash > ~/.local/share/bash-completion/completions/berth"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages; for packages
    #[command(hide = true, after_help = "Example:\n  berth man target/man")]
    Man {
        /// Where; it is made
        directory: PathBuf,
    },
    /// A partition's worker; started by the host
    #[command(hide = true)]
    Worker,
    /// What keeps main storage; started by the host
    #[command(hide = true)]
    Keeper,
    /// What has the users' files; started by the host
    #[command(hide = true)]
    FileManager,
    /// What connects to the users' databases; started by the host
    #[command(hide = true)]
    DatabaseManager,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says nothing of itself");
            let leaves = command.get_subcommands().count();
            assert!(leaves > 0 || command.get_after_help().is_some(), "{name} shows no example");
        }
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let cli = Cli::try_parse_from(["berth", "exec", "p", "-e", "A=b=c", "--", "ls", "--json"]);
        let Command::Exec(args) = cli.unwrap().command else { panic!() };
        assert_eq!(args.command, ["ls", "--json"]);
        assert_eq!(args.env, [("A".to_owned(), "b=c".to_owned())]);
    }
}
