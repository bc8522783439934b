//! `berth files`: who may reach which users' files.

use std::fmt::Write;

use main_storage::Size;
use operator_api::model::{Command, FileGrant, FileRevoke, FileSpace, NewSpace, SpaceBounds};

use crate::args::{FilesCommand, Global};
use crate::commands::done;
use crate::reach::client;
use crate::{Failure, print, print_json};

pub(crate) fn files(global: &Global, command: &FilesCommand) -> Result<(), Failure> {
    let (command, name, what) = match command {
        FilesCommand::List { space } => return list(global, space.as_deref()),
        FilesCommand::Add { space: name, owner } => {
            let space = NewSpace { name: name.clone(), owner: owner.clone() };
            (Command::FilesAdd { space }, name, "added")
        }
        FilesCommand::Grant { place, to, write } => {
            let (space, path) = place_of(place);
            let grant = FileGrant { to: to.clone(), path, write: *write };
            (Command::FilesGrant { space, grant }, place, "granted")
        }
        FilesCommand::Revoke { place, from } => {
            let (space, path) = place_of(place);
            let revoke = FileRevoke { from: from.clone(), path };
            (Command::FilesRevoke { space, revoke }, place, "revoked")
        }
        FilesCommand::Quota { space: name, bytes, files } => {
            let bytes = bytes.map(|Size(bytes)| bytes);
            let (space, bounds) = (name.clone(), SpaceBounds { bytes, files: *files });
            (Command::FilesQuota { space, bounds }, name, "bounded")
        }
    };
    done(global, &command, name, what)
}

/// A space, and a directory in it behind a colon.
fn place_of(place: &str) -> (String, String) {
    let (space, path) = place.split_once(':').unwrap_or((place, ""));
    (space.to_owned(), path.to_owned())
}

fn list(global: &Global, space: Option<&str>) -> Result<(), Failure> {
    let found = client(global)?.file_spaces(space)?;
    if global.json {
        print_json(&found);
        return Ok(());
    }
    print(&table(&found.spaces));
    if found.more {
        print("... and more; name one to see it\n");
    }
    Ok(())
}

fn table(spaces: &[FileSpace]) -> String {
    let width = spaces.iter().map(|space| space.name.len()).max().unwrap_or(0).max(5);
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
        assert_eq!(place_of("alice"), ("alice".to_owned(), String::new()));
        assert_eq!(place_of("alice:a/b"), ("alice".to_owned(), "a/b".to_owned()));
    }

    #[test]
    fn the_table_shows_who_may_do_what() {
        let grant =
            FileGrant { to: "group:staff".to_owned(), path: "notes".to_owned(), write: true };
        let space = FileSpace {
            name: "alice".to_owned(),
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
