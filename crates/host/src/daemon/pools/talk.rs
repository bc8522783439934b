//! What a machine may know of itself, and what is written down of its use.

use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::{DEFAULT_LIFETIME, DatabaseLogin, MAX_CLAIM, Machine, NewToken, PoolText, Record};
use serde_json::json;
use service_pool::{ConversationId, MemberId, Refusal, Worn};

use super::driver::{Conversation, Driver};
use crate::daemon::Shared;
use crate::daemon::database::UsedBy;
use crate::in_full;

/// Longest name of whom a token is for.
const MAX_AUDIENCE: usize = 256;

impl Driver {
    /// The answer to a question of the machine's program: status of HTTP and
    /// JSON. Only the host knows who a machine is; what the machine says of
    /// itself is not looked at.
    pub(super) fn answer(&self, member: &MemberId, path: &str) -> (u16, String) {
        let error = |status, text: &str| (status, json!({ "error": text }).to_string());
        let of = |(id, one): (&ConversationId, &Conversation)| {
            (one.member.as_ref() == Some(member)).then_some(*id)
        };
        let id = self.conversations.iter().find_map(of);
        let Some((id, one)) = id.and_then(|id| Some((id, self.conversations.get(&id)?))) else {
            return error(404, "this machine is nobody's just now");
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path {
            "/v1/identity" => {
                let groups: Vec<_> = one.groups.iter().map(ToString::to_string).collect();
                let body = json!({
                    "machine": member.to_string(),
                    "user": one.user.to_string(),
                    "groups": groups,
                    "conversation": id.to_string(),
                    "tpn": one.tpn.to_string(),
                    "database": self.shared.pool_of(member).and_then(|pool| {
                        self.shared.database_url(pool, &one.user)
                    }),
                    "traceparent": self.measures.parent(id),
                });
                (200, body.to_string())
            }
            "/v1/token" => match audience(query) {
                None => error(400, "say whom the token is for: /v1/token?audience=NAME"),
                Some(audience) => self.token(member, id, one, audience),
            },
            _ => error(404, "there are /v1/identity and /v1/token?audience=NAME"),
        }
    }

    fn token(
        &self,
        member: &MemberId,
        conversation: ConversationId,
        one: &Conversation,
        audience: String,
    ) -> (u16, String) {
        let machine = Machine {
            conversation,
            member: member.clone(),
            pool: member.pool().clone(),
            tpn: one.tpn.clone(),
        };
        let new = NewToken {
            user: one.user.clone(),
            groups: one.groups.clone(),
            audience,
            lifetime: DEFAULT_LIFETIME,
            machine: Some(machine),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.shared.signer.sign(new, now.as_secs()) {
            Ok(token) => {
                let seconds = DEFAULT_LIFETIME.as_secs();
                (200, json!({ "token": token, "expires_in": seconds }).to_string())
            }
            Err(error) => (500, json!({ "error": error.to_string() }).to_string()),
        }
    }
}

/// The audience of a query, percent-decoded.
fn audience(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("audience="))?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).ok()?;
    let fits = (1..=MAX_AUDIENCE).contains(&text.len());
    (fits && !text.chars().any(char::is_control)).then_some(text)
}

impl Shared {
    /// Who wore which machine from when to when.
    pub(super) fn audit_use(&self, worn: &Worn, started: Instant) {
        let Worn { member, conversation, user, tpn, accepted, how, .. } = worn.clone();
        tracing::info!(%member, %user, %conversation, %tpn, ?how, "a conversation has ended");
        let to = milliseconds(SystemTime::now());
        let from = accepted.map(|accepted| moment(started, accepted));
        self.audit(&Record::Worn { machine: member, user, conversation, tpn, from, to, how });
    }

    /// Who got no machine.
    pub(super) fn audit_refusal(&self, one: &Conversation, id: ConversationId, why: Refusal) {
        tracing::info!(user = %one.user, tpn = %one.tpn, conversation = %id, %why, "refused");
        self.audit(&Record::Refused {
            user: one.user.clone(),
            conversation: id,
            tpn: one.tpn.clone(),
            pool: one.pool.clone().map(PoolText),
            at: milliseconds(SystemTime::now()),
            why,
        });
    }

    /// Who did not even get to claim one. At most a few in a second are written.
    pub(super) fn audit_turned_away(&self, user: Option<&str>, tpn: &str, sense: &str) {
        let counted = self.turned_away.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(omitted) = { counted }.count(Instant::now()) else { return };
        tracing::info!(?user, tpn, sense, omitted, "turned away");
        let claim = |text: &str| text.chars().take(MAX_CLAIM).collect::<String>();
        self.audit(&Record::TurnedAway {
            user: user.map(claim),
            tpn: claim(tpn),
            at: milliseconds(SystemTime::now()),
            sense: sense.to_owned(),
            omitted,
        });
    }

    /// As whom a machine's programs used which databases.
    pub(super) fn audit_database(&self, member: &MemberId, used: UsedBy) {
        let UsedBy { user, conversation, logins, refused } = used;
        let login = |(database, role, connections)| DatabaseLogin { database, role, connections };
        self.audit(&Record::Database {
            machine: member.clone(),
            user,
            conversation,
            logins: logins.into_iter().map(login).collect(),
            refused,
            at: milliseconds(SystemTime::now()),
        });
    }

    fn audit(&self, record: &Record) {
        let mut log = self.audit_log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.append(record) {
            tracing::error!(?record, "{}", in_full(&error));
        }
    }
}

fn moment(started: Instant, after: Duration) -> u64 {
    let ago = started.elapsed().saturating_sub(after);
    milliseconds(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH))
}

fn milliseconds(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::audience;

    #[test]
    fn an_audience_is_decoded_and_bounded() {
        assert_eq!(
            audience("audience=https%3A%2F%2Fdb.example"),
            Some("https://db.example".into())
        );
        assert_eq!(audience("x=1&audience=a+b"), Some("a b".into()));
        for bad in [
            "",
            "audience=",
            "audience=%",
            "audience=%4",
            "audience=%zz",
            "audience=%0a",
            "audience=%ff",
        ] {
            assert_eq!(audience(bad), None, "{bad}");
        }
        assert_eq!(audience(&format!("audience={}", "a".repeat(300))), None);
    }
}
