//! The passwords of the server's roles, which only the broker has.

use std::path::Path;

use identity::{FileError, read_private};

use super::Address;
use crate::table::Login;

/// Longest file of passwords, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The password for a login from a file in the form that PostgreSQL's own programs
/// use (`.pgpass`): lines of `host:port:database:role:password`, of which the first
/// that fits counts. `*` fits anything, a backslash takes a colon or backslash as
/// it is, and the host of a Unix socket is its directory or `localhost`.
///
/// # Errors
/// [`FileError`] when the file cannot be read or others can read it.
pub(super) fn password(
    file: &Path,
    address: &Address,
    login: &Login,
) -> Result<Option<String>, FileError> {
    let text = read_private(file, MAX_FILE)?;
    Ok(find(&text, address, login))
}

fn find(text: &str, address: &Address, login: &Login) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(fields).find_map(|[host, port, database, role, password]| {
        let (same_host, its_port) = match address {
            Address::Unix { directory, port } => {
                (host == "localhost" || Path::new(&host) == directory, *port)
            }
            Address::Tcp { host: its, port } => (host == *its, *port),
        };
        let fits = (host == "*" || same_host)
            && (port == "*" || port == its_port.to_string())
            && (database == "*" || database == login.database.as_str())
            && (role == "*" || role == login.role.as_str());
        fits.then_some(password)
    })
}

/// The five fields of a line.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields: [String; 5] = Default::default();
    let mut at = 0;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => fields.get_mut(at)?.push(letters.next()?),
            ':' if at < 4 => at += 1,
            _ => fields.get_mut(at)?.push(letter),
        }
    }
    (at == 4).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Limits;

    fn found(text: &str, address: &str) -> Option<String> {
        let login = Login {
            database: "mail".parse().unwrap(),
            role: "alice".parse().unwrap(),
            limits: Limits::default(),
        };
        find(text, &address.parse().unwrap(), &login)
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# passwords\nbroken\ndb:5432:mail:bob:no\ndb:5432:mail:alice:a\\:b\\\\\n\
                    *:*:*:*:last";
        assert_eq!(found(text, "db").as_deref(), Some("a:b\\"));
        assert_eq!(found(text, "db:5433").as_deref(), Some("last"));
        assert_eq!(found("db:*:mail:alice:x:y", "db").as_deref(), Some("x:y"));
        assert_eq!(found("db:*:other:alice:x", "db"), None);
        assert_eq!(found("", "db"), None);
    }

    #[test]
    fn a_socket_is_this_host_or_its_directory() {
        assert_eq!(found("localhost:*:*:*:x", "/run/postgresql").as_deref(), Some("x"));
        assert_eq!(found("/run/postgresql:*:*:*:x", "/run/postgresql").as_deref(), Some("x"));
        assert_eq!(found("/tmp:*:*:*:x", "/run/postgresql"), None);
    }
}
