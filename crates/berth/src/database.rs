//! `berth database`: who is which role of which database.

use std::fmt::Write;

use operator_api::model::{Command, DatabaseLogin};

use crate::args::{DatabaseCommand, DatabaseGrant, Global};
use crate::commands::done;
use crate::reach::client;
use crate::{Failure, print, print_json};

pub(crate) fn database(global: &Global, command: &DatabaseCommand) -> Result<(), Failure> {
    let (command, name, what) = match command {
        DatabaseCommand::List => return list(global),
        DatabaseCommand::Grant(grant) => {
            (Command::DatabaseGrant { login: login(grant) }, &grant.to, "granted")
        }
        DatabaseCommand::Revoke { from } => {
            (Command::DatabaseRevoke { from: from.clone() }, from, "revoked")
        }
    };
    done(global, &command, name, what)
}

fn login(grant: &DatabaseGrant) -> DatabaseLogin {
    let usual = database_manager::Limits::default();
    DatabaseLogin {
        of: grant.to.clone(),
        database: grant.database.clone(),
        role: grant.role.clone(),
        connections: grant.connections.unwrap_or(usual.connections),
        idle: grant.idle,
        lifetime: grant.lifetime,
    }
}

fn list(global: &Global) -> Result<(), Failure> {
    let found = client(global)?.database_logins()?;
    if global.json {
        print_json(&found);
        return Ok(());
    }
    print(&table(&found.logins));
    if found.more {
        print("... and more\n");
    }
    Ok(())
}

fn table(logins: &[DatabaseLogin]) -> String {
    let widest = |text: fn(&DatabaseLogin) -> String, least: usize| {
        let widths = logins.iter().map(|login| text(login).chars().count());
        widths.max().unwrap_or(0).max(least)
    };
    let of = widest(|one| one.of.clone(), 10);
    let database = widest(|one| one.database.clone(), 10);
    let role = widest(|one| one.role.clone(), 10);
    let head = ("WHO", "DATABASE", "ROLE", "CONNECTIONS");
    let mut out = format!(
        "{:of$}  {:database$}  {:role$}  {}  {:>8}  {:>8}\n",
        head.0, head.1, head.2, head.3, "IDLE", "LIFETIME"
    );
    for one in logins {
        let DatabaseLogin { of: who, database: name, role: its, .. } = one;
        let time =
            |limit: Option<u32>| limit.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
        let _ = writeln!(
            out,
            "{who:of$}  {name:database$}  {its:role$}  {:>11}  {:>8}  {:>8}",
            one.connections,
            time(one.idle),
            time(one.lifetime)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_is_what_within_which_limits() {
        let login = DatabaseLogin {
            of: "group:staff".to_owned(),
            database: "mail".to_owned(),
            role: "alice_mail".to_owned(),
            connections: 3,
            idle: Some(60),
            lifetime: None,
        };
        let text = table(&[login]);
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["group:staff", "mail", "alice_mail", "3", "60", "s", "-"]);
    }
}
