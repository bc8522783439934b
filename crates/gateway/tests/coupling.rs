//! The coupling alone: a user and an echo, in any order of events.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::VecDeque;

use conversation::Attach;
use conversation::HalfSession;
use conversation::fmh5::TpName;
use conversation::half_session::{Confirmation, MAX_HELD, Received, State};
use gateway::Ending;
use gateway::coupling::{Coupling, INPUT, PIECE, TURN};
use proptest::prelude::*;

/// What happens next; sizes are of bytes.
#[derive(Debug, Clone)]
enum Step {
    UserSends(usize),
    UserGivesTurn,
    UserAsks,
    UserReceives,
    ToGateway(usize),
    ToUser(usize),
    ProgramReads(usize),
    ProgramWrites(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..20_000_usize).prop_map(Step::UserSends),
        Just(Step::UserGivesTurn),
        Just(Step::UserAsks),
        Just(Step::UserReceives),
        (1..40_000_usize).prop_map(Step::ToGateway),
        (1..40_000_usize).prop_map(Step::ToUser),
        (1..10_000_usize).prop_map(Step::ProgramReads),
        (1..10_000_usize).prop_map(Step::ProgramWrites),
    ]
}

/// A user, a coupling, and a program that holds at most 4096 bytes.
struct World {
    user: HalfSession,
    coupling: Coupling,
    program: VecDeque<u8>,
    sent: Vec<u8>,
    received: Vec<u8>,
    in_turn: usize,
    end_told: bool,
    over: bool,
}

impl World {
    fn new() -> Self {
        let mut user = HalfSession::new();
        let _ = user.allocate(&Attach::new(TpName::new("test"))).unwrap();
        let _ = user.flush().unwrap();
        let mut session = HalfSession::new();
        session.feed(user.output()).unwrap();
        user.drain(user.output().len());
        session.accept().unwrap();
        Self {
            user,
            coupling: Coupling::new(session),
            program: VecDeque::new(),
            sent: Vec::new(),
            received: Vec::new(),
            in_turn: 0,
            end_told: false,
            over: false,
        }
    }

    fn take(&mut self, step: &Step) {
        let sending = matches!(self.user.state(), State::Send | State::SendPending);
        match *step {
            Step::UserSends(length) if sending && self.in_turn + length <= TURN => {
                let bytes: Vec<u8> =
                    (0..length).map(|place| ((self.sent.len() + place) % 251) as u8).collect();
                if self.user.send_data(&bytes).is_ok() {
                    self.in_turn += length;
                    self.sent.extend(bytes);
                }
            }
            Step::UserGivesTurn if sending => {
                let _ = self.user.prepare_to_receive(Confirmation::Flush).unwrap();
                self.in_turn = 0;
            }
            Step::UserAsks if self.user.state() == State::Receive => {
                let _ = self.user.request_to_send().unwrap();
            }
            Step::UserReceives if self.user.state() == State::Receive => {
                match self.user.receive_immediate(9_000).unwrap() {
                    Received::Data(data) => self.received.extend(data.bytes),
                    Received::Code(_) => self.over = true,
                    Received::Status(_) | Received::Nothing => {}
                }
            }
            Step::ToGateway(most) => {
                let length = most.min(self.user.output().len());
                let bytes = self.user.output()[..length].to_vec();
                self.user.drain(length);
                self.coupling.from_user(&bytes);
            }
            Step::ToUser(most) => {
                let length = most.min(self.coupling.to_user().len());
                let bytes = self.coupling.to_user()[..length].to_vec();
                self.coupling.user_took(length);
                self.user.feed(&bytes).unwrap();
            }
            Step::ProgramReads(most) => self.program_reads(most),
            Step::ProgramWrites(most) => self.program_writes(most),
            _ => {}
        }
        assert!(self.coupling.held_bytes() <= MAX_HELD + 2 * INPUT + PIECE);
    }

    fn program_reads(&mut self, most: usize) {
        let room = 4096 - self.program.len();
        let input = self.coupling.to_program();
        let length = most.min(room).min(input.len());
        self.program.extend(&input[..length]);
        if length > 0 {
            self.coupling.program_took(length);
        }
        if self.coupling.wants_flush() {
            self.coupling.program_flushed();
        }
        if self.coupling.wants_end_of_input() {
            self.coupling.input_closed();
            self.end_told = true;
        }
    }

    fn program_writes(&mut self, most: usize) {
        if !self.coupling.wants_output() {
            return;
        }
        let length = most.min(self.program.len());
        let bytes: Vec<u8> = self.program.drain(..length).collect();
        if !bytes.is_empty() {
            self.coupling.from_program(&bytes);
        } else if self.end_told {
            self.coupling.from_program(&[]);
            self.coupling.program_ended(Ending::Confirmed);
        }
    }

    /// A user who asks for the turn, ends the input and receives the rest.
    fn finish(&mut self) {
        let mut told = false;
        for _ in 0..100_000 {
            if self.over {
                return;
            }
            let sending = matches!(self.user.state(), State::Send | State::SendPending);
            if sending && !told {
                told = self.user.send_user_control_data(b"").is_ok();
            }
            let asks = if told { Step::UserReceives } else { Step::UserAsks };
            for step in [
                Step::UserGivesTurn,
                asks,
                Step::ToGateway(usize::MAX),
                Step::ProgramReads(usize::MAX),
                Step::ProgramWrites(usize::MAX),
                Step::ToUser(usize::MAX),
                Step::UserReceives,
            ] {
                self.take(&step);
            }
        }
    }
}

proptest! {
    #[test]
    fn an_echo_gives_back_every_byte_in_order_whatever_comes_when(
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.finish();
        prop_assert!(world.over, "nobody stands still");
        prop_assert!(world.received == world.sent);
        prop_assert!(world.coupling.user_is_done() && world.coupling.program_is_done());
        prop_assert_eq!(world.coupling.abend(), None);
    }
}
