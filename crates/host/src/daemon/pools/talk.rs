//! What a machine may know of itself, and what is written down of its use.

use std::time::Instant;

use serde_json::json;
use service_pool::{ConversationId, MemberId, Refusal, Worn};

use super::driver::{Conversation, Driver};
use crate::daemon::Shared;

impl Driver {
    /// The answer to a question of the machine's program: status of HTTP and
    /// JSON. Only the host knows who a machine is; what the machine says of
    /// itself is not looked at.
    pub(super) fn answer(&self, member: &MemberId, path: &str) -> (u16, String) {
        let (path, _query) = path.split_once('?').unwrap_or((path, ""));
        let of = |(id, one): (&ConversationId, &Conversation)| {
            (one.member.as_ref() == Some(member)).then_some(*id)
        };
        let id = self.conversations.iter().find_map(of);
        let Some((id, one)) = id.and_then(|id| Some((id, self.conversations.get(&id)?))) else {
            let body = json!({ "error": "this machine is nobody's just now" });
            return (404, body.to_string());
        };
        match path {
            "/v1/identity" => {
                let body = json!({
                    "machine": member.to_string(),
                    "user": one.user.to_string(),
                    "groups": one.groups,
                    "conversation": id.to_string(),
                    "tpn": one.tpn.to_string(),
                });
                (200, body.to_string())
            }
            _ => (404, json!({ "error": "there is /v1/identity" }).to_string()),
        }
    }
}

impl Shared {
    /// Who wore which machine from when to when.
    pub(super) fn audit_use(&self, worn: &Worn, _started: Instant) {
        tracing::info!(
            member = %worn.member,
            user = %worn.user,
            conversation = %worn.conversation,
            tpn = %worn.tpn,
            how = ?worn.how,
            "a conversation has ended"
        );
    }

    /// Who got no machine.
    pub(super) fn audit_refusal(&self, one: &Conversation, id: ConversationId, why: Refusal) {
        tracing::info!(user = %one.user, tpn = %one.tpn, conversation = %id, %why, "refused");
    }
}
