//! Programs in guests.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(super) const EXEC_EXAMPLES: &str = "\
Examples:
  berth exec lpar2 -- uname -a
  berth exec lpar2 --env LANG=C --cwd /tmp -- sh -c 'ls -l; pwd'
  echo 'print(6*7)' | berth exec lpar2 -- python3 -";

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

pub(super) const ALLOCATE_EXAMPLES: &str = "\
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

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE, e.g. LANG=C".to_owned()),
    }
}
