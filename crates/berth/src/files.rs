//! `berth files`: who may reach which users' files.

use std::fmt::Write;

use host::control::{FileSpace, FilesRequest, Reply, Request};
use main_storage::Size;

use crate::args::{FilesCommand, Global};
use crate::commands::{ask, done, unexpected};
use crate::{Failure, print, print_json};

pub(crate) fn files(global: &Global, command: &FilesCommand) -> Result<(), Failure> {
    let (request, name, what) = match command {
        FilesCommand::List { space } => return list(global, space.as_deref()),
        FilesCommand::Add { space, owner } => {
            let request = FilesRequest::Add { space: parse(space)?, owner: owner.clone() };
            (request, space, "added")
        }
        FilesCommand::Grant { place, to, write } => {
            let (space, path) = place_of(place);
            let (space, path) = (parse(space)?, parse(path)?);
            let request = FilesRequest::Grant { space, to: parse(to)?, path, write: *write };
            (request, place, "granted")
        }
        FilesCommand::Revoke { place, from } => {
            let (space, path) = place_of(place);
            let (space, path) = (parse(space)?, parse(path)?);
            (FilesRequest::Revoke { space, to: parse(from)?, path }, place, "revoked")
        }
        FilesCommand::Quota { space, bytes, files } => {
            let bytes = bytes.map(|Size(bytes)| bytes);
            let request = FilesRequest::Quota { space: parse(space)?, bytes, files: *files };
            (request, space, "bounded")
        }
    };
    done(global, &Request::Files { request }, name, what)
}

/// A space, and a directory in it behind a colon.
fn place_of(place: &str) -> (&str, &str) {
    place.split_once(':').unwrap_or((place, ""))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| Failure::Other(error.to_string()))
}

fn list(global: &Global, space: Option<&str>) -> Result<(), Failure> {
    let space = space.map(parse).transpose()?;
    let request = Request::Files { request: FilesRequest::List { space } };
    let Reply::Files { spaces, more } = ask(global, &request)? else { return unexpected() };
    if global.json {
        print_json(&serde_json::json!({ "spaces": spaces, "more": more }));
        return Ok(());
    }
    print(&table(&spaces));
    if more {
        print("... and more; name one to see it\n");
    }
    Ok(())
}

fn table(spaces: &[FileSpace]) -> String {
    let width = spaces.iter().map(|space| space.name.as_str().len()).max().unwrap_or(0).max(5);
    let mut out = format!("{:width$}  {:<16}  {:<20}  GRANTS\n", "SPACE", "OWNER", "QUOTA");
    for space in spaces {
        let quota = format!("{} {} files", Size(space.most_bytes), space.most_files);
        let owner = space.owner.as_deref().unwrap_or("-");
        let grants = space.grants.iter().map(|grant| {
            let right = if grant.write { "write" } else { "read" };
            format!("{} {right} /{}", grant.to, grant.path)
        });
        let grants = grants.collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "{:width$}  {owner:<16}  {quota:<20}  {grants}", space.name);
        if let (Some(bytes), Some(files)) = (space.bytes, space.files) {
            let _ = writeln!(out, "{:width$}  holds {bytes} bytes in {files} files", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_space_and_perhaps_a_directory() {
        assert_eq!(place_of("alice"), ("alice", ""));
        assert_eq!(place_of("alice:a/b"), ("alice", "a/b"));
    }

    #[test]
    fn the_table_shows_who_may_do_what() {
        let grant = host::control::FileGrant {
            to: "group:staff".parse().unwrap(),
            path: "notes".parse().unwrap(),
            write: true,
        };
        let space = FileSpace {
            name: "alice".parse().unwrap(),
            owner: Some("alice".to_owned()),
            most_bytes: 1 << 30,
            most_files: 1000,
            bytes: Some(5),
            files: Some(2),
            grants: vec![grant],
        };
        let text = table(&[space]);
        for word in ["alice", "1G", "1000 files", "group:staff write /notes", "5 bytes in 2"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
