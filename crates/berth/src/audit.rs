//! `berth audit`: who wore which machine, and who was refused.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operator_api::model::AuditEntry;

use crate::args::{AuditArgs, Global};
use crate::reach::client;
use crate::{Failure, pool, print, print_json};

pub(crate) fn audit(global: &Global, args: &AuditArgs) -> Result<(), Failure> {
    let page = client(global)?.audit(args.text.as_deref(), args.before, args.limit)?;
    if global.json {
        print_json(&page);
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print(&table(&page.entries, now));
    if let Some(next) = page.next {
        print(&format!("older ones: --before {next}\n"));
    }
    if page.damaged > 0 {
        eprintln!("{} lines of the log are no records and were passed over", page.damaged);
    }
    Ok(())
}

fn table(entries: &[AuditEntry], now: Duration) -> String {
    let mut out = format!(
        "{:<8}  {:<11}  {:<16}  {:<12}  {:<12}  {:<22}  HOW\n",
        "AGO", "RECORD", "USER", "PROGRAM", "MACHINE", "CONVERSATION"
    );
    for entry in entries {
        let AuditEntry { record, user, tpn, conversation, machine, pool: of, at, how, .. } = entry;
        let or_none = |text: Option<&String>| text.map_or("-", String::as_str).to_owned();
        let ago = pool::ago(now.saturating_sub(Duration::from_millis(*at)));
        let (who, program) = (some(user), some(tpn));
        let machine = or_none(machine.as_ref().or(of.as_ref()));
        let conversation = or_none(conversation.as_ref());
        let _ = writeln!(
            out,
            "{ago:<8}  {record:<11}  {who:<16}  {program:<12}  {machine:<12}  {conversation:<22}  {how}"
        );
    }
    out
}

fn some(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_who_was_what_and_how_it_ended() {
        let text = ToString::to_string;
        let entry = AuditEntry {
            record: text("worn"),
            user: text("alice"),
            tpn: text("mail"),
            conversation: Some(text("c-1")),
            machine: Some(text("serve-03")),
            pool: None,
            from: Some(1000),
            at: 61_000,
            how: text("confirmed"),
        };
        let table = table(&[entry], Duration::from_secs(361));
        let words: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["5", "min", "worn", "alice", "mail", "serve-03", "c-1", "confirmed"]);
    }
}
