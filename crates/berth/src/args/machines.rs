//! The host, its pools and its images.

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) const UP_EXAMPLES: &str = "\
Examples:
  berth up
  berth up -f examples/worked-example/berth.toml --detach
  berth --state-dir /tmp/b up -f berth.toml --detach --no-wait";

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
