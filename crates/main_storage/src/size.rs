//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written `128M`, `1G`, `64K` or plain.
///
/// ```
/// use main_storage::Size;
/// assert_eq!("128M".parse::<Size>().unwrap(), Size(128 << 20));
/// assert_eq!(Size(1536 << 20).to_string(), "1536M");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Size(pub u64);

/// Why a text is not a size. Whoever wrote it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSizeError {
    /// Not digits followed by at most one of K, M, G and T.
    #[error("\"{0}\" is not a size; write bytes or a whole number with K, M, G or T, e.g. 128M")]
    Form(String),
    /// More bytes than 64 bits count.
    #[error("\"{0}\" is more than 2^64 bytes; write a smaller size")]
    TooLarge(String),
}

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let (digits, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| {
                let rest = text.strip_suffix([*unit, unit.to_ascii_lowercase()])?;
                Some((rest, *shift))
            })
            .unwrap_or((text, 0));
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseSizeError::Form(text.to_owned()));
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| ParseSizeError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Size {
    /// The shortest form that names exactly these bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .map_or_else(
                || self.0.to_string(),
                |(unit, shift)| format!("{}{unit}", self.0 >> shift),
            );
        f.pad(&exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64k", 65536),
            ("509M", 509 << 20),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_repeated() {
        for text in ["", "M", "-1", "+1", "1.5G", "1 M", "12MB", "0x10", "1KM", "١M"] {
            assert_eq!(text.parse::<Size>(), Err(ParseSizeError::Form(text.to_owned())));
        }
        for text in ["18446744073709551616", "16777216T"] {
            assert_eq!(text.parse::<Size>(), Err(ParseSizeError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn display_is_the_shortest_exact_form() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1K"),
            (1 << 30, "1G"),
            (1536 << 20, "1536M"),
            (4097, "4097"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>6}", Size(1 << 30)), "    1G");
    }

    proptest::proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(number: u64, shift in 0u32..64) {
            let size = Size(number << shift);
            proptest::prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
