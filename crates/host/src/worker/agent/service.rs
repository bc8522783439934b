//! A transaction program that was started beforehand.

use std::collections::VecDeque;
use std::sync::Mutex;

use agent_protocol::{Message, Status, Tpn};

use super::{Heard, lock};
use crate::link::{ProgramEnd, ReadyWhen, Report};

/// Bytes of a program's last words that are kept.
const WORDS: usize = 2048;
/// Characters of a reason of the guest's that are kept.
const REASON: usize = 1024;

/// The end of what a program wrote.
#[derive(Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.extend(&bytes[bytes.len().saturating_sub(WORDS)..]);
        self.0.drain(..self.0.len().saturating_sub(WORDS));
    }

    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What a last word says.
pub(super) fn end_of(message: &Message) -> Option<ProgramEnd> {
    match message {
        Message::Exited(Status::Code(code)) => Some(ProgramEnd::Exited { code: *code }),
        Message::Exited(Status::Signal(signal)) => Some(ProgramEnd::Signal { signal: *signal }),
        Message::Failed(why) => {
            Some(ProgramEnd::Failed { reason: why.chars().take(REASON).collect() })
        }
        _ => None,
    }
}

/// See the module. Its outputs have no reader but its last words.
pub(super) struct Service {
    pub(super) tpn: Tpn,
    when: ReadyWhen,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: bool,
    words: Tail,
}

impl Service {
    pub(super) fn new(tpn: Tpn, when: ReadyWhen) -> Self {
        Self { tpn, when, state: Mutex::default() }
    }

    /// One that has been ready since before.
    pub(super) fn ready(tpn: Tpn) -> Self {
        let state = Mutex::new(State { ready: true, words: Tail::default() });
        Self { tpn, when: ReadyWhen::Notify, state }
    }

    pub(super) fn is_ready(&self) -> bool {
        lock(&self.state).ready
    }

    /// Takes what the guest said. All credit is given back at once: while
    /// nothing is on its way, all of it is with the guest.
    pub(super) fn deliver(&self, message: &Message) -> Result<Heard, &'static str> {
        let mut state = lock(&self.state);
        let mut heard = Heard::default();
        match message {
            Message::Stdout(bytes) | Message::Stderr(bytes) => {
                state.words.add(bytes);
                // A frame's length fits.
                heard.credit = Some(bytes.len() as u32).filter(|credit| *credit > 0);
            }
            Message::ServiceReady if self.when == ReadyWhen::Notify && !state.ready => {
                state.ready = true;
                heard.report = Some(self.is_there());
            }
            Message::Exited(Status::Code(0)) if self.when == ReadyWhen::Exit => {
                heard.report = Some(self.is_there());
            }
            Message::Exited(_) | Message::Failed(_) => {
                heard.report = end_of(message).map(|end| self.ended(end, &state));
            }
            Message::Credit(_) => {}
            _ => return Err("the guest's agent said what has no meaning for a service"),
        }
        Ok(heard)
    }

    pub(super) fn fail(&self, why: &str) -> Option<Report> {
        let end = ProgramEnd::Failed { reason: why.to_owned() };
        Some(self.ended(end, &lock(&self.state)))
    }

    fn is_there(&self) -> Report {
        Report::ServiceReady { tpn: self.tpn.to_string() }
    }

    fn ended(&self, end: ProgramEnd, state: &State) -> Report {
        Report::ServiceEnded { tpn: self.tpn.to_string(), end, words: state.words.text() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(when: ReadyWhen) -> Service {
        Service::new(Tpn::new("MAIL").unwrap(), when)
    }

    fn report(service: &Service, message: &Message) -> Option<Report> {
        service.deliver(message).unwrap().report
    }

    fn ready() -> Option<Report> {
        Some(Report::ServiceReady { tpn: "MAIL".to_owned() })
    }

    fn ended(end: ProgramEnd, words: &str) -> Option<Report> {
        let (tpn, words) = ("MAIL".to_owned(), words.to_owned());
        Some(Report::ServiceEnded { tpn, end, words })
    }

    #[test]
    fn a_service_is_ready_once_and_its_end_comes_with_its_last_words() {
        let service = service(ReadyWhen::Notify);
        assert!(!service.is_ready());
        assert_eq!(report(&service, &Message::ServiceReady), ready());
        assert!(service.is_ready() && service.deliver(&Message::ServiceReady).is_err());
        let heard = service.deliver(&Message::Stderr(b"no memory".to_vec())).unwrap();
        assert_eq!(heard, Heard { credit: Some(9), report: None });
        let end = ended(ProgramEnd::Exited { code: 0 }, "no memory");
        assert_eq!(report(&service, &Message::Exited(Status::Code(0))), end);
    }

    #[test]
    fn a_program_that_is_ready_when_it_exits_must_exit_well() {
        let exits = service(ReadyWhen::Exit);
        assert!(exits.deliver(&Message::ServiceReady).is_err());
        assert_eq!(report(&exits, &Message::Exited(Status::Code(0))), ready());
        let failed = ended(ProgramEnd::Exited { code: 2 }, "");
        assert_eq!(report(&exits, &Message::Exited(Status::Code(2))), failed);
        let killed = ended(ProgramEnd::Signal { signal: 9 }, "");
        assert_eq!(report(&exits, &Message::Exited(Status::Signal(9))), killed);
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let mut tail = Tail::default();
        tail.add(&[b'a'; 100_000]);
        tail.add(b"end");
        assert_eq!(tail.text().len(), WORDS);
        assert!(tail.text().ends_with("aend"));
    }
}
