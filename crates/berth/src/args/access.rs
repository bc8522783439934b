//! Who is let in: users, tokens, and what may be done with users' files and
//! databases.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use main_storage::Size;

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

/// Which records of the audit log.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only records with this text in user, machine, program, pool, conversation or ending
    pub(crate) text: Option<String>,
    /// How many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) limit: u16,
    /// Only older ones than this place: `next` of the page before
    #[arg(long, value_name = "PLACE")]
    pub(crate) before: Option<u64>,
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
