//! `berth open` and `berth api`: the operator's interface by HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use host::control::{Reply, Request};
use identity::ApiTokens;

use crate::args::{ApiCommand, Global, RoleArg};
use crate::commands::{ask, unexpected};
use crate::user::other;
use crate::{Failure, print, print_json, state_dir};

const DAY: u64 = 86_400;

pub(crate) fn open(global: &Global, role: RoleArg) -> Result<(), Failure> {
    let Reply::Link { url } = ask(global, &Request::OpenConsole { role: role.into() })? else {
        return unexpected();
    };
    if global.json {
        print_json(&serde_json::json!({ "result": "open", "url": url }));
    } else {
        println!("{url}");
        eprintln!("good once, within two minutes");
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) fn api(global: &Global, command: &ApiCommand) -> Result<(), Failure> {
    let dir = state_dir(global)?;
    let path = dir.api_tokens();
    let load = || ApiTokens::load(&path).map_err(other);
    match command {
        ApiCommand::Token { role, days, note } => {
            // Tokens can be made before there is a host.
            dir.make()?;
            let mut tokens = load()?;
            let lifetime = Duration::from_secs(u64::from(*days) * DAY);
            let token = tokens.make((*role).into(), lifetime, note, now()).map_err(other)?;
            tokens.save(&path).map_err(other)?;
            if global.json {
                let expires = now() + lifetime.as_secs();
                print_json(&serde_json::json!({ "token": token, "expires": expires }));
            } else {
                println!("{token}");
            }
        }
        ApiCommand::Tokens => {
            let tokens = load()?;
            if global.json {
                let each = tokens.all().iter().map(|token| {
                    serde_json::json!({
                        "id": token.id, "role": token.role, "expires": token.expires, "note": token.note,
                    })
                });
                print_json(&serde_json::json!({ "tokens": each.collect::<Vec<_>>() }));
                return Ok(());
            }
            let mut text = format!("{:<8}  {:<13}  {:>9}  NOTE\n", "ID", "ROLE", "EXPIRES");
            for token in tokens.all() {
                let left = match token.expires.checked_sub(now()) {
                    None | Some(0) => "expired".to_owned(),
                    Some(left) if left < 2 * DAY => format!("{} h", left / 3600),
                    Some(left) => format!("{} days", left / DAY),
                };
                let role = token.role.as_str();
                text += &format!("{:<8}  {role:<13}  {left:>9}  {}\n", token.id, token.note);
            }
            print(&text);
        }
        ApiCommand::Revoke { id } => {
            let mut tokens = load()?;
            tokens.revoke(id).map_err(other)?;
            tokens.save(&path).map_err(other)?;
            if global.json {
                print_json(&serde_json::json!({ "result": "revoked", "id": id }));
            } else {
                println!("{id} is revoked");
            }
        }
        ApiCommand::Openapi => print(&format!("{}\n", operator_api::openapi())),
    }
    Ok(())
}
