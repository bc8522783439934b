//! Clients' ways into guests: commands and consoles.

use std::os::fd::AsFd;

use operator_api::model::Exec;
use operator_api::{WayIn, Wish};

use crate::daemon::Shared;
use crate::daemon::board::CommandError;
use crate::link::Order;

/// Bytes of a command with its variables: the guest's agent takes no more.
const MOST: usize = 64 << 10;

impl Shared {
    /// A way into a guest.
    pub(super) fn way_in(&self, name: &str, wish: &Wish) -> Result<WayIn, CommandError> {
        let order = match wish {
            Wish::Console => Order::Console,
            Wish::Exec(exec) => {
                let process = self.board().get(name)?.running()?;
                if !process.is_ready() {
                    return Err(CommandError::Starting(process.name.clone()));
                }
                order(exec)?
            }
        };
        let process = self.visited(name)?;
        Ok(Box::new(move |client| process.give(&order, &[client.as_fd()])))
    }
}

fn order(exec: &Exec) -> Result<Order, CommandError> {
    let Exec { argv, env, cwd, wait: _ } = exec;
    let words = argv.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
    let bytes: usize = words.map(|word| word.len().saturating_add(1)).sum();
    if bytes.saturating_add(cwd.len()) > MOST {
        let what =
            "command and variables are longer than 64 KiB; pass them on standard input".to_owned();
        return Err(CommandError::Invalid(what));
    }
    let env = env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Order::Exec { argv: argv.clone(), env, cwd: cwd.clone() })
}
