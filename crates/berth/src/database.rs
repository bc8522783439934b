//! `berth database`: who is which role of which database.

use std::fmt::Write;

use database_manager::{Limits, Login};
use host::control::{DatabaseLogin, DatabaseRequest, Reply, Request};

use crate::args::{DatabaseCommand, DatabaseGrant, Global};
use crate::commands::{ask, done, unexpected};
use crate::{Failure, print, print_json};

pub(crate) fn database(global: &Global, command: &DatabaseCommand) -> Result<(), Failure> {
    let (request, name, what) = match command {
        DatabaseCommand::List => return list(global),
        DatabaseCommand::Grant(grant) => {
            let request = DatabaseRequest::Grant { to: parse(&grant.to)?, login: login(grant)? };
            (request, &grant.to, "granted")
        }
        DatabaseCommand::Revoke { from } => {
            (DatabaseRequest::Revoke { from: parse(from)? }, from, "revoked")
        }
    };
    done(global, &Request::Database { request }, name, what)
}

fn login(grant: &DatabaseGrant) -> Result<Login, Failure> {
    let usual = Limits::default();
    let limits = Limits {
        connections: grant.connections.unwrap_or(usual.connections),
        idle: grant.idle,
        lifetime: grant.lifetime,
    };
    Ok(Login { database: parse(&grant.database)?, role: parse(&grant.role)?, limits })
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::Other(error.to_string()))
}

fn list(global: &Global) -> Result<(), Failure> {
    let request = Request::Database { request: DatabaseRequest::List };
    let Reply::Databases { logins, more } = ask(global, &request)? else { return unexpected() };
    if global.json {
        print_json(&serde_json::json!({ "logins": logins, "more": more }));
        return Ok(());
    }
    print(&table(&logins));
    if more {
        print("... and more\n");
    }
    Ok(())
}

fn table(logins: &[DatabaseLogin]) -> String {
    let widest = |text: fn(&DatabaseLogin) -> String, least: usize| {
        let widths = logins.iter().map(|login| text(login).chars().count());
        widths.max().unwrap_or(0).max(least)
    };
    let of = widest(|one| one.of.to_string(), 10);
    let database = widest(|one| one.login.database.to_string(), 10);
    let role = widest(|one| one.login.role.to_string(), 10);
    let head = ("WHO", "DATABASE", "ROLE", "CONNECTIONS");
    let mut out = format!(
        "{:of$}  {:database$}  {:role$}  {}  {:>8}  {:>8}\n",
        head.0, head.1, head.2, head.3, "IDLE", "LIFETIME"
    );
    for one in logins {
        let Login { database: name, role: its, limits } = &one.login;
        let time =
            |limit: Option<u32>| limit.map_or("-".to_owned(), |seconds| format!("{seconds} s"));
        let _ = writeln!(
            out,
            "{:of$}  {name:database$}  {its:role$}  {:>11}  {:>8}  {:>8}",
            one.of.to_string(),
            limits.connections,
            time(limits.idle),
            time(limits.lifetime)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_is_what_within_which_limits() {
        let limits = Limits { connections: 3, idle: Some(60), lifetime: None };
        let (database, role) = ("mail".parse().unwrap(), "alice_mail".parse().unwrap());
        let login = Login { database, role, limits };
        let text = table(&[DatabaseLogin { of: "group:staff".parse().unwrap(), login }]);
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["group:staff", "mail", "alice_mail", "3", "60", "s", "-"]);
    }
}
