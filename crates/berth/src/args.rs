//! The command line as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use host::control::MoveMode;
use main_storage::Size;

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
    /// still starting.
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

const UP_EXAMPLES: &str = "\
Examples:
  berth up
  berth up -f examples/worked-example/berth.toml --detach
  berth --state-dir /tmp/b up -f berth.toml --detach --no-wait";

const CREATE_EXAMPLES: &str = "\
Examples:
  berth create ci --size 128M --start
  berth create ci --size 256M --origin 128M --image python --vcpus 2 --disk 64M --json";

const EXEC_EXAMPLES: &str = "\
Examples:
  berth exec lpar2 -- uname -a
  berth exec lpar2 --env LANG=C --cwd /tmp -- sh -c 'ls -l; pwd'
  echo 'print(6*7)' | berth exec lpar2 -- python3 -";

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user with a password
    #[command(
        after_help = "Examples:\n  berth user add alice --group staff --password-file pw\n  \
                            openssl rand -hex 16 | tee pw | berth user add ci --password-file -"
    )]
    Add {
        /// The user id
        name: String,
        /// A group the user is in; may be given more than once
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// File whose first line is the password; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// The users file [default: users.toml in the state directory]
        #[arg(long, value_name = "FILE")]
        users: Option<PathBuf>,
    },
    /// Give a user another password
    #[command(after_help = "Example:\n  berth user password alice --password-file -")]
    Password {
        /// The user id
        name: String,
        /// File whose first line is the password; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// The users file [default: users.toml in the state directory]
        #[arg(long, value_name = "FILE")]
        users: Option<PathBuf>,
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

/// What can be done with users' databases.
#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Show who is what, and within which limits
    #[command(after_help = "Examples:\n  berth database list\n  berth database list --json")]
    List,
    /// Give a user or a group a login, in the place of the one it had
    ///
    /// A user has his own, or else that of the first of his groups, by name, that has
    /// one. The role must be one that can log in and become no other.
    #[command(
        after_help = "Examples:\n  berth database grant user:alice --database mail --role alice\n  berth database grant group:staff --database reports --role reader --connections 4 --idle 600"
    )]
    Grant(DatabaseGrant),
    /// Take a login back; connections by it end
    #[command(after_help = "Example:\n  berth database revoke user:alice")]
    Revoke {
        /// user:ID or group:NAME
        #[arg(value_name = "WHO")]
        from: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseGrant {
    /// user:ID or group:NAME
    #[arg(value_name = "WHO")]
    pub(crate) to: String,
    /// The database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: String,
    /// The role
    #[arg(long, value_name = "NAME")]
    pub(crate) role: String,
    /// Connections of each user at once, in all machines together [default: 16]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) connections: Option<u16>,
    /// Seconds for which nothing may be said in a connection [default: no bound]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<u32>,
    /// Seconds that a connection may last [default: as long as the conversation]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) lifetime: Option<u32>,
}

/// What can be done with users' files.
#[derive(Debug, Subcommand)]
pub(crate) enum FilesCommand {
    /// Show spaces: owner, quota and who else may reach them
    #[command(after_help = "Examples:\n  berth files list\n  berth files list alice --json")]
    List {
        /// Only this one, and what it holds
        space: Option<String>,
    },
    /// Add a space; a user's own is added when it is first used
    #[command(
        after_help = "Examples:\n  berth files add team\n  berth files add alice --owner alice"
    )]
    Add {
        /// Its name; a user's own is called as the user is
        space: String,
        /// Whose own it is
        #[arg(long, value_name = "USER")]
        owner: Option<String>,
    },
    /// Let a user or group reach a space, or a directory in it
    #[command(
        after_help = "Examples:\n  berth files grant alice:notes --to user:bob\n  berth files grant team --to group:staff --write"
    )]
    Grant {
        /// The space; with a directory in it behind a colon, only that
        #[arg(value_name = "SPACE[:DIR]")]
        place: String,
        /// user:ID or group:NAME
        #[arg(long)]
        to: String,
        /// To change what is there, not only to read it
        #[arg(long)]
        write: bool,
    },
    /// Take a grant back
    #[command(after_help = "Example:\n  berth files revoke alice:notes --from user:bob")]
    Revoke {
        /// The space, and the directory as it was granted
        #[arg(value_name = "SPACE[:DIR]")]
        place: String,
        /// user:ID or group:NAME
        #[arg(long)]
        from: String,
    },
    /// Bound what a space may hold; without bounds, as the host file does
    #[command(
        after_help = "Examples:\n  berth files quota alice --bytes 5G --files 200000\n  berth files quota alice"
    )]
    Quota {
        /// The space
        space: String,
        /// Bytes in files
        #[arg(long, value_name = "SIZE")]
        bytes: Option<Size>,
        /// Files, directories and links
        #[arg(long, value_name = "NUMBER")]
        files: Option<u64>,
    },
}

/// What somebody may do by HTTP, as `--role` writes it.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    /// See everything, change nothing
    Viewer,
    /// Also start, stop, move and resize what is there
    Operator,
    /// Also make and delete partitions, and end the host
    Administrator,
}

impl From<RoleArg> for identity::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Operator => Self::Operator,
            RoleArg::Administrator => Self::Administrator,
        }
    }
}

/// What can be done about the HTTP interface.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiCommand {
    /// Make a token and print it; the host keeps only its hash
    #[command(after_help = "Examples:\n  berth api token --role viewer --note grafana\n  \
                            berth api token --role operator --days 7")]
    Token {
        /// What its bearer may do
        #[arg(long, value_enum)]
        role: RoleArg,
        /// How long it is good
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        note: String,
    },
    /// List the tokens there are, by id
    #[command(after_help = "Example:\n  berth api tokens --json")]
    Tokens,
    /// Make a token good no more
    #[command(after_help = "Example:\n  berth api revoke 1b7fd68f")]
    Revoke {
        /// Its id
        id: String,
    },
    /// Print the description of the interface (OpenAPI 3.1)
    #[command(after_help = "Example:\n  berth api openapi > openapi.json")]
    Openapi,
}

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Show machines by primary id: state, program, alternate user id, since when
    #[command(after_help = "Examples:\n  berth pool status\n  berth pool status serve --json")]
    Status {
        /// Only this pool
        name: Option<String>,
    },
    /// Let a pool that gave up building machines try again
    #[command(after_help = "Example:\n  berth pool resume serve")]
    Resume {
        /// The pool
        name: String,
    },
    /// Keep more or fewer machines ready, up to the number in the host file
    #[command(after_help = "Example:\n  berth pool resize serve --min 5 --max 10")]
    Resize {
        /// The pool
        name: String,
        /// Machines that are kept ready
        #[arg(long)]
        min: u16,
        /// Machines that there can be
        #[arg(long)]
        max: u16,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The host file
    #[arg(short, long, value_name = "FILE", default_value = "berth.toml")]
    pub(crate) file: PathBuf,
    /// Go on in the background; return once every guest serves commands
    #[arg(long)]
    pub(crate) detach: bool,
    /// With --detach: return as soon as the host answers
    #[arg(long, requires = "detach")]
    pub(crate) no_wait: bool,
    /// The background half of --detach
    #[arg(long, hide = true, conflicts_with = "detach")]
    pub(crate) background: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NameArg {
    /// The partition
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: a-z, 0-9 and -
    pub(crate) name: String,
    /// Its storage
    #[arg(long)]
    pub(crate) size: Size,
    /// Where it starts in main storage [default: the best fit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) origin: Option<Size>,
    /// Its guest's image
    #[arg(long, default_value = "minimal")]
    pub(crate) image: String,
    /// Its vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(host::host_file::MAX_VCPUS)))]
    pub(crate) vcpus: u8,
    /// A data disk, at least so large
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Size>,
    /// Start it too
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The partition
    pub(crate) name: String,
    /// Do not ask the guest: pull its plug
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new origin
    #[arg(long, value_name = "SIZE")]
    pub(crate) to: Size,
    /// Whether the guest runs meanwhile
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExchangeArgs {
    /// One partition
    pub(crate) a: String,
    /// The other one
    pub(crate) b: String,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("size").required(true))]
pub(crate) struct ExpandArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new size
    #[arg(long, value_name = "SIZE", group = "size")]
    pub(crate) to: Option<Size>,
    /// How much more
    #[arg(long, value_name = "SIZE", group = "size")]
    pub(crate) by: Option<Size>,
    /// Move neighbours out of the way first
    #[arg(long)]
    pub(crate) make_room: bool,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new size
    #[arg(long, value_name = "SIZE")]
    pub(crate) to: Size,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Size of the free range [default: all that is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) free: Option<Size>,
    /// Only show the plan
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// As `--mode` writes it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Mode {
    /// It runs on; only who writes to the chunk in flight waits
    #[default]
    Live,
    /// It is stopped while its storage is copied page by page
    Stop,
}

impl From<Mode> for MoveMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Live => Self::Live,
            Mode::Stop => Self::Stop,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The partition
    pub(crate) name: String,
    /// Set a variable for the command; can be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Directory to start in [default: the home directory]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub(crate) cwd: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

const ALLOCATE_EXAMPLES: &str = "\
Exit status:
  0   the program ended in order
  1   no connection, or another failure
  2   wrong usage
  69  refused: this cannot be had (no such program, parameters, quota)
  70  the program failed, died or was out of time
  75  refused or lost: try again (no machine is free now)
  77  refused: user, password, token or authority

Examples:
  echo list | berth allocate serve/mailbox --user alice
  berth allocate serve/backup --user alice -- --verbose < data.tar
  berth allocate serve --user alice --token-file token --host pool.example:6262 --ca gateway.crt";

#[derive(Debug, Args)]
pub(crate) struct AllocateArgs {
    /// The pool, or a program of it
    #[arg(value_name = "POOL[/TPN]")]
    pub(crate) name: String,
    /// Who asks; without it, nobody in particular
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", requires = "user", conflicts_with = "token_file")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with a signed token of the user
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) token_file: Option<PathBuf>,
    /// The gateway's local socket [default: lu62.sock in the state directory]
    #[arg(long, value_name = "PATH", conflicts_with = "host")]
    pub(crate) socket: Option<PathBuf>,
    /// A gateway of the network, over TLS
    #[arg(long, value_name = "NAME:PORT", requires = "ca")]
    pub(crate) host: Option<String>,
    /// File of the certificate that is trusted (the host's gateway.crt)
    #[arg(long, value_name = "FILE", requires = "host")]
    pub(crate) ca: Option<PathBuf>,
    /// Whether the gateway is to confirm that a machine was given
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sync: Sync,
    /// Parameters for the program
    #[arg(last = true, value_name = "ARG")]
    pub(crate) parameters: Vec<String>,
}

/// As `--sync` writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sync {
    /// Ask for confirmation
    #[default]
    Confirm,
    /// Do not
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from a recipe
    ///
    /// Takes the packages from the mirrors that this host's apt uses, verifies
    /// them as apt does, and needs no root. A broken download resumes.
    #[command(
        after_help = "Examples:\n  berth image build minimal\n  berth image build ./my-recipe.toml"
    )]
    Build {
        /// A recipe's name (minimal, python) or the path of a recipe file
        recipe: String,
    },
    /// List the images there are
    #[command(after_help = "Example:\n  berth image list")]
    List,
    /// Remove an image; guests that use it go on
    #[command(after_help = "Example:\n  berth image rm minimal")]
    Rm {
        /// The image
        name: String,
    },
}

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
    },
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE, e.g. LANG=C".to_owned()),
    }
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
