//! The audit log for operators.

use std::io;
use std::path::Path;

use identity::{AuditPage as Found, DatabaseLogin, Record, audit_page};
use operator_api::model::{AuditEntry, AuditPage, AuditQuery};
use service_pool::{Ending, Refusal};

/// Records at once, if nobody says how many.
const USUAL: u16 = 50;

/// Records as they were asked for.
pub(super) fn page(path: &Path, query: &AuditQuery) -> io::Result<AuditPage> {
    let wanted = query.q.as_deref().unwrap_or_default().to_lowercase();
    let limit = usize::from(query.limit.unwrap_or(USUAL));
    let found = audit_page(path, query.before, limit, |record| {
        wanted.is_empty() || matches(&entry(record), &wanted)
    });
    let Found { records, next, damaged } = found?;
    Ok(AuditPage { entries: records.iter().map(entry).collect(), next, damaged })
}

fn matches(entry: &AuditEntry, wanted: &str) -> bool {
    let always = [&entry.user, &entry.tpn, &entry.how];
    let texts = always.into_iter().chain(&entry.conversation).chain(&entry.machine);
    let mut texts = texts.chain(&entry.pool);
    texts.any(|text| text.to_lowercase().contains(wanted))
}

fn entry(record: &Record) -> AuditEntry {
    let text = ToString::to_string;
    match record {
        Record::Worn { machine, user, conversation, tpn, from, to, how } => AuditEntry {
            record: text("worn"),
            user: user.to_string(),
            tpn: tpn.to_string(),
            conversation: Some(conversation.to_string()),
            machine: Some(machine.to_string()),
            pool: None,
            from: *from,
            at: *to,
            how: text(ending(*how)),
        },
        Record::Refused { user, conversation, tpn, pool, at, why } => AuditEntry {
            record: text("refused"),
            user: user.to_string(),
            tpn: tpn.to_string(),
            conversation: Some(conversation.to_string()),
            machine: None,
            pool: pool.as_ref().map(|pool| pool.0.to_string()),
            from: None,
            at: *at,
            how: text(refusal(*why)),
        },
        Record::TurnedAway { user, tpn, at, sense, omitted } => AuditEntry {
            record: text("turned-away"),
            user: user.clone().unwrap_or_default(),
            tpn: tpn.clone(),
            conversation: None,
            machine: None,
            pool: None,
            from: None,
            at: *at,
            how: match omitted {
                0 => sense.clone(),
                omitted => format!("{sense}, and {omitted} others before"),
            },
        },
        Record::Database { machine, user, conversation, logins, refused, at } => AuditEntry {
            record: text("database"),
            user: user.to_string(),
            tpn: String::new(),
            conversation: Some(conversation.to_string()),
            machine: Some(machine.to_string()),
            pool: None,
            from: None,
            at: *at,
            how: connections(logins, *refused),
        },
    }
}

/// As whom what was used how often.
fn connections(logins: &[DatabaseLogin], refused: u64) -> String {
    let login = |DatabaseLogin { database, role, connections }: &DatabaseLogin| {
        format!("{role} in {database}: {connections}")
    };
    let refused = (refused > 0).then(|| format!("refused: {refused}"));
    logins.iter().map(login).chain(refused).collect::<Vec<_>>().join(", ")
}

const fn ending(how: Ending) -> &'static str {
    match how {
        Ending::Confirmed => "confirmed",
        Ending::NotAccepted => "not-accepted",
        Ending::NotStarted => "not-started",
        Ending::ProgramAbend => "program-abend",
        Ending::ClientAbend => "client-abend",
        Ending::LostConnection => "lost-connection",
        Ending::Deadline => "deadline",
        Ending::MachineDied => "machine-died",
    }
}

const fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::UnknownTpn => "unknown-tpn",
        Refusal::NotAuthorised => "not-authorised",
        Refusal::NotNow => "not-now",
        Refusal::Closed => "closed",
        Refusal::WaitRanOut => "wait-ran-out",
        Refusal::QueueFull => "queue-full",
    }
}
