//! What is known of registers within a block, so that the code for one
//! instruction can be the better for those before it.

use cranelift_codegen::ir::Value;
use riscv::Inst;

/// One register.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fact {
    /// It is this number.
    pub(super) constant: Option<i64>,
    /// It is this value and the number.
    pub(super) sum: Option<(Value, i64)>,
    /// It is this value of 32 bits, sign-extended.
    pub(super) word: Option<Value>,
    /// Its low half is this.
    pub(super) low: Option<Value>,
    /// It is this value shifted left by so many bits, 1 to 63.
    pub(super) shifted: Option<(Value, i64)>,
    /// It is this value shifted right by so many bits, zeros moving in.
    pub(super) lowered: Option<(Value, i64)>,
    /// `word` is this one of 32 bits, shifted in one of these ways.
    pub(super) word_shifted: Option<(Value, i64)>,
    pub(super) word_lowered: Option<(Value, i64)>,
}

/// All integer registers.
#[derive(Debug, Default)]
pub(super) struct Facts([Fact; 32]);

impl Facts {
    /// What is known of `register`.
    pub(super) fn of(&self, register: u8) -> Fact {
        match register & 31 {
            0 => Fact { constant: Some(0), ..Fact::default() },
            register => self.0[usize::from(register)],
        }
    }

    /// The low half of `register` is `low`.
    pub(super) fn set_low(&mut self, register: u8, low: Value) {
        self.0[usize::from(register & 31)].low = Some(low);
    }

    /// `register` was written; `fact` is known of it now.
    pub(super) fn set(&mut self, register: u8, fact: Fact) {
        if (1..Inst::SINK).contains(&register) {
            self.0[usize::from(register & 31)] = fact;
        }
    }
}
