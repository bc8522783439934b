//! Where the server is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// Where a PostgreSQL listens.
///
/// As text the directory of its Unix socket, such as `/run/postgresql`, or a host;
/// `:PORT` may follow either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// On this host.
    Unix {
        /// The directory of the socket.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
    /// At the other end of a network.
    Tcp {
        /// Name or address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// This is no address of a server. Whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no server; use /DIRECTORY of its socket, HOST, or one of them with :PORT")]
pub struct AddressError(String);

impl Address {
    /// The socket's file.
    pub(crate) fn socket(directory: &Path, port: u16) -> PathBuf {
        directory.join(format!(".s.PGSQL.{port}"))
    }

    /// Whether what is said to it passes through this host's kernel only.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { host, .. } => {
                let loopback = |address: std::net::IpAddr| address.is_loopback();
                host == "localhost" || host.parse().is_ok_and(loopback)
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.chars().take(80).collect());
        // An address of IPv6 stands in brackets, or alone.
        let bare = text.parse::<std::net::Ipv6Addr>().is_ok();
        let (place, port) = match text.rsplit_once(':').filter(|_| !bare) {
            Some((_, digits)) if digits.ends_with(']') => (text, PORT),
            Some((place, digits)) => (place, digits.parse().map_err(|_| wrong())?),
            None => (text, PORT),
        };
        if port == 0 {
            return Err(wrong());
        }
        if place.starts_with('/') {
            return Ok(Self::Unix { directory: PathBuf::from(place), port });
        }
        let bracketed = place.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(place);
        let good = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let named = bracketed.is_none() && !host.is_empty() && host.chars().all(good);
        let numbered = host.parse::<std::net::Ipv6Addr>().is_ok();
        if host.len() > 253 || !(named || numbered) {
            return Err(wrong());
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_directory_or_host() {
        for (text, local) in [
            ("/run/postgresql:5432", true),
            ("/x:5433", true),
            ("db.example:5432", false),
            ("localhost:1", true),
            ("127.0.0.1:5432", true),
            ("[::1]:5432", true),
            ("[2001:db8::1]:5432", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.is_local()), (text, local));
        }
        let same = |a: &str, b: &str| assert_eq!(a.parse::<Address>(), b.parse(), "{a}");
        same("/run/postgresql", "/run/postgresql:5432");
        same("db.example", "db.example:5432");
        same("::1", "[::1]:5432");
        same("[::1]", "[::1]:5432");
        for bad in ["", ":5432", "db:x", "db:0", "a b", "db:70000", "a:b:1", "[x]:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
