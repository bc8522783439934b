//! `berth user`: who may come in by the network, with which password.

use std::io::Read;
use std::path::{Path, PathBuf};

use identity::Users;
use service_pool::{Group, UserId};

use crate::args::{Global, UserCommand};
use crate::{Failure, print_json, state_dir};

/// Bytes of a password file that are looked at.
const MOST: u64 = 4096;

pub(crate) fn user(global: &Global, command: &UserCommand) -> Result<(), Failure> {
    let (name, result) = match command {
        UserCommand::Add { name, groups, password_file, users } => {
            let path = path(global, users.as_deref())?;
            let mut known = load(&path)?;
            let groups = groups.iter().map(|group| Group::new(group)).collect::<Result<_, _>>();
            let password = password(password_file)?;
            known.add(id(name)?, groups.map_err(other)?, &password).map_err(other)?;
            known.save(&path).map_err(other)?;
            (name, "added")
        }
        UserCommand::Password { name, password_file, users } => {
            let path = path(global, users.as_deref())?;
            let mut known = load(&path)?;
            known.set_password(&id(name)?, &password(password_file)?).map_err(other)?;
            known.save(&path).map_err(other)?;
            (name, "changed")
        }
    };
    if global.json {
        print_json(&serde_json::json!({ "result": result, "name": name }));
    } else {
        println!("{name} is {result}");
    }
    Ok(())
}

pub(crate) fn other(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Failure::Other(text)
}

fn id(name: &str) -> Result<UserId, Failure> {
    UserId::new(name).map_err(other)
}

/// The users file: as given, or the one in the state directory.
fn path(global: &Global, given: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(match given {
        Some(path) => path.to_owned(),
        None => state_dir(global)?.users(),
    })
}

fn load(path: &Path) -> Result<Users, Failure> {
    if path.exists() { Users::load(path).map_err(other) } else { Ok(Users::default()) }
}

/// The first line of a file, or of standard input for `-`.
fn password(file: &Path) -> Result<String, Failure> {
    let read = |from: &mut dyn Read| {
        let mut text = String::new();
        from.take(MOST).read_to_string(&mut text).map(|_| text)
    };
    let text = if file == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(file).and_then(|mut file| read(&mut file))
    };
    let text = text.map_err(|error| {
        Failure::Other(format!("the password cannot be read from {}: {error}", file.display()))
    })?;
    let password = text.lines().next().unwrap_or_default();
    if !password.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "a password has letters, digits and signs of ASCII, without blanks";
        return Err(Failure::Other(what.to_owned()));
    }
    Ok(password.to_owned())
}
