//! Where commands are asked for, and in which words.

use std::fmt::Write;

use hyper::Method;
use operator_api::model::Command;
use serde_json::{Value, json};

/// A name as a part of a path, whatever is in it.
pub(crate) fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // A string never refuses.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The request that asks for `command`.
pub(crate) fn request(command: &Command) -> (Method, String, Value) {
    let of = |name: &str, what: &str| format!("/v1/partitions/{}/{what}", segment(name));
    let pool = |name: &str, what: &str| format!("/v1/pools/{}/{what}", segment(name));
    let space = |name: &str, what: &str| format!("/v1/files/{}/{what}", segment(name));
    let (path, body) = match command {
        Command::Create { partition } => ("/v1/partitions".to_owned(), json!(partition)),
        Command::Delete { name } => {
            let path = format!("/v1/partitions/{}", segment(name));
            return (Method::DELETE, path, json!({}));
        }
        Command::Start { name } => (of(name, "start"), json!({})),
        Command::Stop { name, now } => (of(name, "stop"), json!({ "now": now })),
        Command::Restart { name, now } => (of(name, "restart"), json!({ "now": now })),
        Command::Move { name, to, mode } => (of(name, "move"), json!({ "to": to, "mode": mode })),
        Command::Exchange { a, b } => ("/v1/exchange".to_owned(), json!({ "a": a, "b": b })),
        Command::Expand { name, to, by, make_room } => {
            (of(name, "expand"), json!({ "to": to, "by": by, "make_room": make_room }))
        }
        Command::Shrink { name, to } => (of(name, "shrink"), json!({ "to": to })),
        Command::Compact { free } => ("/v1/compact".to_owned(), json!({ "free": free })),
        Command::PoolResume { name } => (pool(name, "resume"), json!({})),
        Command::PoolResize { name, min, max } => {
            (pool(name, "resize"), json!({ "min": min, "max": max }))
        }
        Command::FilesAdd { space } => ("/v1/files".to_owned(), json!(space)),
        Command::FilesGrant { space: name, grant } => (space(name, "grant"), json!(grant)),
        Command::FilesRevoke { space: name, revoke } => (space(name, "revoke"), json!(revoke)),
        Command::FilesQuota { space: name, bounds } => (space(name, "quota"), json!(bounds)),
        Command::DatabaseGrant { login } => ("/v1/databases/grant".to_owned(), json!(login)),
        Command::DatabaseRevoke { from } => {
            ("/v1/databases/revoke".to_owned(), json!({ "from": from }))
        }
        Command::Await => ("/v1/await".to_owned(), json!({})),
        Command::Down => ("/v1/down".to_owned(), json!({})),
    };
    (Method::POST, path, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_anywhere_else() {
        assert_eq!(segment("lpar-1"), "lpar-1");
        assert_eq!(segment("a/../b?c#d é."), "a%2F%2E%2E%2Fb%3Fc%23d%20%C3%A9%2E");
        let (method, path, body) = request(&Command::Delete { name: "../x".to_owned() });
        assert_eq!((method, path.as_str()), (Method::DELETE, "/v1/partitions/%2E%2E%2Fx"));
        assert_eq!(body, json!({}));
    }
}
