//! `berth open` and `berth api`: the operator's interface by HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::ApiTokens;
use operator_api::model::{MadeToken, NewLink, NewToken, TokenInfo};
use operator_client::ClientError;

use crate::args::{ApiCommand, Global, RoleArg};
use crate::reach::client;
use crate::user::other;
use crate::{Failure, print, print_json, state_dir};

const DAY: u64 = 86_400;

pub(crate) fn open(global: &Global, role: RoleArg) -> Result<(), Failure> {
    let url = client(global)?.link(&NewLink { role: role.into() })?.url;
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
    match command {
        ApiCommand::Token { role, days, note } => {
            let new = NewToken { role: (*role).into(), days: *days, note: note.clone() };
            let made = make(global, &new)?;
            if global.json {
                print_json(&made);
            } else {
                println!("{}", made.token);
            }
        }
        ApiCommand::Tokens => {
            let tokens = list(global)?;
            if global.json {
                print_json(&serde_json::json!({ "tokens": tokens }));
            } else {
                print(&table(&tokens));
            }
        }
        ApiCommand::Revoke { id } => {
            revoke(global, id)?;
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

fn table(tokens: &[TokenInfo]) -> String {
    let mut text = format!("{:<8}  {:<13}  {:>9}  NOTE\n", "ID", "ROLE", "EXPIRES");
    for token in tokens {
        let left = match token.expires.checked_sub(now()) {
            None | Some(0) => "expired".to_owned(),
            Some(left) if left < 2 * DAY => format!("{} h", left / 3600),
            Some(left) => format!("{} days", left / DAY),
        };
        let role = token.role.as_str();
        text += &format!("{:<8}  {role:<13}  {left:>9}  {}\n", token.id, token.note);
    }
    text
}

/// Asks the host, or does it to the file of tokens that the next host reads: they
/// can be made before there is one.
fn either<T>(
    global: &Global,
    ask: impl FnOnce(&mut operator_client::Client) -> Result<T, ClientError>,
    act: impl FnOnce(&mut ApiTokens) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match ask(&mut client(global)?) {
        Err(ClientError::NoHost { .. }) => {}
        result => return Ok(result?),
    }
    let dir = state_dir(global)?;
    dir.make()?;
    let path = dir.api_tokens();
    let mut tokens = ApiTokens::load(&path).map_err(other)?;
    let before = tokens.clone();
    let done = act(&mut tokens)?;
    if tokens != before {
        tokens.save(&path).map_err(other)?;
    }
    Ok(done)
}

fn make(global: &Global, new: &NewToken) -> Result<MadeToken, Failure> {
    let lifetime = u64::from(new.days) * DAY;
    either(
        global,
        |client| client.make_token(new),
        |tokens| {
            let (now, lasts) = (now(), Duration::from_secs(lifetime));
            let token = tokens.make(new.role, lasts, &new.note, now).map_err(other)?;
            Ok(MadeToken { token, expires: now + lifetime })
        },
    )
}

fn list(global: &Global) -> Result<Vec<TokenInfo>, Failure> {
    either(global, operator_client::Client::tokens, |tokens| {
        let each = tokens.all().iter().map(|token| TokenInfo {
            id: token.id.clone(),
            role: token.role,
            expires: token.expires,
            note: token.note.clone(),
        });
        Ok(each.collect())
    })
}

fn revoke(global: &Global, id: &str) -> Result<(), Failure> {
    either(global, |client| client.revoke_token(id), |tokens| tokens.revoke(id).map_err(other))
}
