//! EBCDIC for the names that LU 6.2 carries.
//!
//! Names are made of the characters whose EBCDIC code is the same wherever
//! LU 6.2 is spoken: letters, digits and the punctuation of character set
//! 00640, and `$`, `#`, `@` in their places of code page 037, which type A
//! strings contain. Nothing else has a code here, so a name that was read can
//! be written back to the same bytes.

use std::fmt;

/// Which characters a name may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// Upper-case letters, digits, `$`, `#`, `@`: names of LUs.
    A,
    /// Type A, lower-case letters and `.`.
    AE,
    /// Every character of this module but the blank: names of transaction
    /// programs and of users, passwords, signed tokens.
    Graphic,
}

impl Alphabet {
    /// True if a name may contain `character`.
    pub fn contains(self, character: char) -> bool {
        match self {
            Self::A => matches!(character, 'A'..='Z' | '0'..='9' | '$' | '#' | '@'),
            Self::AE => Self::A.contains(character) || matches!(character, 'a'..='z' | '.'),
            Self::Graphic => character != ' ' && to_code(character).is_some(),
        }
    }
}

/// A character that a name of this alphabet may not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotInAlphabet {
    /// The alphabet the name is to be in.
    pub alphabet: Alphabet,
    /// Where the offender stands, counted in characters from 0.
    pub position: usize,
}

impl fmt::Display for NotInAlphabet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = match self.alphabet {
            Alphabet::A => "A-Z, 0-9, $, # and @",
            Alphabet::AE => "letters, digits, $, #, @ and the full stop",
            Alphabet::Graphic => "letters, digits and .<(+&*);-/,%_>?:'=\"$#@",
        };
        write!(f, "character {} of a name is none of {allowed}", self.position + 1)
    }
}

impl std::error::Error for NotInAlphabet {}

/// Characters that do not lie in a run, with their codes.
const SINGLE: [(char, u8); 23] = [
    (' ', 0x40),
    ('.', 0x4b),
    ('<', 0x4c),
    ('(', 0x4d),
    ('+', 0x4e),
    ('&', 0x50),
    ('$', 0x5b),
    ('*', 0x5c),
    (')', 0x5d),
    (';', 0x5e),
    ('-', 0x60),
    ('/', 0x61),
    (',', 0x6b),
    ('%', 0x6c),
    ('_', 0x6d),
    ('>', 0x6e),
    ('?', 0x6f),
    (':', 0x7a),
    ('#', 0x7b),
    ('@', 0x7c),
    ('\'', 0x7d),
    ('=', 0x7e),
    ('"', 0x7f),
];

/// Runs of characters with consecutive codes: the first, its code, how many.
const RUNS: [(u8, u8, u8); 7] = [
    (b'a', 0x81, 9),
    (b'j', 0x91, 9),
    (b's', 0xa2, 8),
    (b'A', 0xc1, 9),
    (b'J', 0xd1, 9),
    (b'S', 0xe2, 8),
    (b'0', 0xf0, 10),
];

fn to_code(character: char) -> Option<u8> {
    let single = SINGLE.iter().find(|(other, _)| *other == character).map(|(_, code)| *code);
    single.or_else(|| {
        let byte = u8::try_from(character).ok()?;
        RUNS.iter().find_map(|&(first, code, count)| {
            let place = byte.checked_sub(first).filter(|place| *place < count)?;
            Some(code + place)
        })
    })
}

fn to_character(code: u8) -> Option<char> {
    let single = SINGLE.iter().find(|(_, other)| *other == code).map(|(character, _)| *character);
    single.or_else(|| {
        RUNS.iter().find_map(|&(first, start, count)| {
            let place = code.checked_sub(start).filter(|place| *place < count)?;
            Some(char::from(first + place))
        })
    })
}

/// The EBCDIC bytes of `name`.
///
/// # Errors
/// [`NotInAlphabet`] for the first character outside `alphabet`.
pub fn encode(name: &str, alphabet: Alphabet) -> Result<Vec<u8>, NotInAlphabet> {
    name.chars()
        .enumerate()
        .map(|(position, character)| {
            let code = alphabet.contains(character).then(|| to_code(character)).flatten();
            code.ok_or(NotInAlphabet { alphabet, position })
        })
        .collect()
}

/// The name that EBCDIC `bytes` spell.
///
/// # Errors
/// [`NotInAlphabet`] for the first byte that is no character of `alphabet`.
pub fn decode(bytes: &[u8], alphabet: Alphabet) -> Result<String, NotInAlphabet> {
    bytes
        .iter()
        .enumerate()
        .map(|(position, byte)| {
            let character = to_character(*byte).filter(|found| alphabet.contains(*found));
            character.ok_or(NotInAlphabet { alphabet, position })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_has_one_code_and_comes_back() {
        let known: Vec<u8> = (0..=255).filter(|code| to_character(*code).is_some()).collect();
        assert_eq!(known.len(), 62 + SINGLE.len());
        for code in known {
            assert_eq!(to_character(code).and_then(to_code), Some(code));
        }
    }

    #[test]
    fn names_are_written_as_the_mainframe_does() {
        assert_eq!(encode("PROG1", Alphabet::A).unwrap(), [0xd7, 0xd9, 0xd6, 0xc7, 0xf1]);
        assert_eq!(encode("a.z", Alphabet::AE).unwrap(), [0x81, 0x4b, 0xa9]);
        assert_eq!(decode(&[0xe3, 0xd7, 0xf1], Alphabet::Graphic).unwrap(), "TP1");
    }

    #[test]
    fn a_character_outside_the_alphabet_is_named_by_its_place() {
        let refused = encode("ABc", Alphabet::A).unwrap_err();
        assert_eq!(refused, NotInAlphabet { alphabet: Alphabet::A, position: 2 });
        assert!(encode("a b", Alphabet::Graphic).is_err());
        assert!(encode("straße", Alphabet::Graphic).is_err());
        assert!(decode(&[0xc1, 0x00], Alphabet::Graphic).is_err());
    }
}
