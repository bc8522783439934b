//! A client of the operator's interface, for programs that may wait.
//!
//! A [`Client`] keeps one connection to the host at a [`Place`]: its local socket,
//! or its address, by TLS. What is said there is `operator_api`'s; commands are
//! followed to their end ([`Client::carry_out`]). Answers and what leads to them
//! are bounded in size and time.

mod commands;
mod connection;
mod error;
mod events;
mod place;
mod session;

use hyper::Method;
use operator_api::model::{
    AuditPage, Command, CompactPlan, DatabaseLogins, ExchangePlan, FileSpaces, MadeLink, MadeToken,
    MovePlan, NewLink, NewToken, Operation, OperationState, Outcome, ResizePlan, State, TokenInfo,
};
use operator_api::{NewSize, Problem};
use serde::Serialize;
use serde_json::json;

use commands::{request, segment};
use connection::Connection;
pub use error::ClientError;
pub use place::{Place, Proof, Remote};
pub use session::Session;

/// What is heard of a command before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// It is this operation, which can be cancelled by its number.
    Begun(u64),
    /// Something to tell the operator.
    Note(&'a str),
    /// How far a copy is.
    Copying {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// What it is going to do.
    Plan(&'a CompactPlan),
}

/// Nothing more to say.
#[derive(Serialize)]
struct Nothing {}

/// A client of one host.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// A client of the host at `place`. It is reached when something is asked.
    ///
    /// # Errors
    /// [`ClientError`] when what the place names cannot be used.
    pub fn new(place: &Place) -> Result<Self, ClientError> {
        Ok(Self { connection: Connection::new(place)? })
    }

    /// Everything there is, asked of the host itself.
    ///
    /// # Errors
    /// [`ClientError`], as for every question.
    pub fn state(&mut self) -> Result<State, ClientError> {
        self.connection.ask(Method::GET, "/v1/status?fresh=true", &Nothing {})
    }

    /// Has a command carried out and waits for its end; `hear` is told meanwhile.
    /// Whatever can be cancelled is, should this client end before.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] also says what has changed all the
    /// same.
    pub fn carry_out(
        &mut self,
        command: &Command,
        mut hear: impl FnMut(Heard<'_>),
    ) -> Result<Outcome, ClientError> {
        let (method, path, body) = request(command);
        let mut events = self.connection.follow(method, &path, &body)?;
        let mut before: Option<Operation> = None;
        while let Some(data) = self.connection.next(&mut events)? {
            let now: Operation = serde_json::from_str(&data)?;
            tell(before.as_ref(), &now, &mut hear);
            before = Some(now);
        }
        let ended = before.ok_or(ClientError::Ended)?;
        match (ended.state, ended.result, ended.error) {
            (OperationState::Succeeded, Some(outcome), _) => Ok(outcome),
            (OperationState::Failed, _, Some(problem)) => Err(refused(problem)),
            _ => Err(ClientError::Ended),
        }
    }

    /// Asks an operation to end at the next point where it can.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn cancel(&mut self, id: u64) -> Result<Operation, ClientError> {
        let path = format!("/v1/operations/{id}/cancel");
        self.connection.ask(Method::POST, &path, &Nothing {})
    }

    /// What a move would do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan_move(&mut self, name: &str, to: u64) -> Result<MovePlan, ClientError> {
        self.post("/v1/plans/move", &json!({ "name": name, "to": to }))
    }

    /// What an exchange would do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan_exchange(&mut self, a: &str, b: &str) -> Result<ExchangePlan, ClientError> {
        self.post("/v1/plans/exchange", &json!({ "a": a, "b": b }))
    }

    /// What another size would take.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan_resize(
        &mut self,
        name: &str,
        size: NewSize,
        make_room: bool,
    ) -> Result<ResizePlan, ClientError> {
        let plan = match size {
            NewSize::By(by) => json!({ "by": by, "only": "expand" }),
            NewSize::UpTo(to) => json!({ "to": to, "only": "expand" }),
            NewSize::DownTo(to) => json!({ "to": to, "only": "shrink" }),
            NewSize::Exactly(to) => json!({ "to": to }),
        };
        let mut plan = plan;
        (plan["name"], plan["make_room"]) = (json!(name), json!(make_room));
        self.post("/v1/plans/resize", &plan)
    }

    /// What a compaction would do.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan_compact(&mut self, free: Option<u64>) -> Result<CompactPlan, ClientError> {
        self.post("/v1/plans/compact", &json!({ "free": free }))
    }

    /// Records of the audit log with this text, the newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn audit(
        &mut self,
        with: Option<&str>,
        before: Option<u64>,
        limit: u16,
    ) -> Result<AuditPage, ClientError> {
        let with = with.map_or(String::new(), |text| format!("&q={}", segment(text)));
        let before = before.map_or(String::new(), |place| format!("&before={place}"));
        self.get(&format!("/v1/audit?limit={limit}{with}{before}"))
    }

    /// Spaces of users' files, or one and what it holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn file_spaces(&mut self, only: Option<&str>) -> Result<FileSpaces, ClientError> {
        match only {
            None => self.get("/v1/files"),
            Some(space) => {
                let space = self.get(&format!("/v1/files/{}", segment(space)))?;
                Ok(FileSpaces { spaces: vec![space], more: false })
            }
        }
    }

    /// Who is which role of which database.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn database_logins(&mut self) -> Result<DatabaseLogins, ClientError> {
        self.get("/v1/databases")
    }

    /// A link that lets a browser in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn link(&mut self, link: &NewLink) -> Result<MadeLink, ClientError> {
        self.post("/v1/links", link)
    }

    /// A new token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn make_token(&mut self, token: &NewToken) -> Result<MadeToken, ClientError> {
        self.post("/v1/tokens", token)
    }

    /// Every token there is, but for itself.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn tokens(&mut self) -> Result<Vec<TokenInfo>, ClientError> {
        self.get("/v1/tokens")
    }

    /// Makes a token good no more.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn revoke_token(&mut self, id: &str) -> Result<(), ClientError> {
        self.connection.tell(Method::DELETE, &format!("/v1/tokens/{}", segment(id)))
    }

    /// Waits until the host has gone. Good for a client that was answered before.
    pub fn wait_for_end(self) {
        self.connection.wait_for_end();
    }

    fn get<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        self.connection.ask(Method::GET, path, &Nothing {})
    }

    fn post<T: serde::de::DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.connection.ask(Method::POST, path, body)
    }
}

fn refused(problem: Problem) -> ClientError {
    ClientError::Refused(Box::new(problem))
}

/// Tells what is different between two words of an operation.
fn tell(before: Option<&Operation>, now: &Operation, hear: &mut impl FnMut(Heard<'_>)) {
    if before.is_none() {
        hear(Heard::Begun(now.id));
    }
    if let Some(plan) = now.plan.as_ref().filter(|_| before.is_none_or(|was| was.plan.is_none())) {
        hear(Heard::Plan(plan));
    }
    let noted = before.and_then(|was| was.note.as_ref());
    if let Some(note) = now.note.as_ref().filter(|note| noted != Some(note)) {
        hear(Heard::Note(note));
    }
    let (done, total) = (now.done, now.total);
    if total > 0 && before.is_none_or(|was| (was.done, was.total) != (done, total)) {
        hear(Heard::Copying { done, total });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        let operation = |note: Option<&str>, done: u64| Operation {
            id: 7,
            command: Command::Await,
            by: "local".to_owned(),
            state: OperationState::Running,
            cancelling: false,
            started: 0,
            ended: None,
            note: note.map(str::to_owned),
            done,
            total: 2 * done,
            plan: None,
            result: None,
            error: None,
        };
        let mut told = Vec::new();
        let steps = [operation(None, 0), operation(Some("a"), 0), operation(Some("a"), 3)];
        let mut before = None;
        for step in &steps {
            tell(before, step, &mut |heard| told.push(format!("{heard:?}")));
            before = Some(step);
        }
        let wanted = ["Begun(7)", "Note(\"a\")", "Copying { done: 3, total: 6 }"];
        assert_eq!(told, wanted);
    }
}
