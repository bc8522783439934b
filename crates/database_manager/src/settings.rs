//! What a guest sets when it connects.

/// Names and values.
pub(crate) type Parameters = Vec<(String, String)>;

const APPLICATION: &str = "application_name";
/// Longest name of an application, in bytes, as PostgreSQL has it.
const LONGEST: usize = 63;

/// All of them but the name of the application, and that: it can be set afterwards as
/// well as at first. None if it can not.
pub(crate) fn apart(parameters: &Parameters) -> Option<(Parameters, Option<&str>)> {
    let (names, others): (Vec<_>, Vec<_>) =
        parameters.iter().partition(|(name, _)| name == APPLICATION);
    // As with PostgreSQL, the last one counts.
    let application = names.last().map(|(_, value)| value.as_str());
    let plain = application.is_none_or(is_plain);
    plain.then(|| (others.into_iter().cloned().collect(), application))
}

/// Whether this is the same in any encoding, and between quotes.
fn is_plain(application: &str) -> bool {
    let plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'\\');
    application.len() <= LONGEST && application.bytes().all(plain)
}

/// The statement that sets the name.
pub(crate) fn set_application(plain: &str) -> String {
    debug_assert!(is_plain(plain));
    format!("SET {APPLICATION} TO '{plain}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Parameters {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_last_name_is_set_apart() {
        let all = list(&[(APPLICATION, "a"), ("jit", "off"), (APPLICATION, "my app (1.2)")]);
        assert_eq!(apart(&all), Some((list(&[("jit", "off")]), Some("my app (1.2)"))));
        assert_eq!(apart(&list(&[])), Some((list(&[]), None)));
    }

    #[test]
    fn names_that_are_more_than_text_are_not() {
        let long = "x".repeat(LONGEST + 1);
        for name in ["'; SELECT 1; --", "a\\", "\u{e9}", "a\n", "\u{7f}", &long] {
            assert_eq!(apart(&list(&[(APPLICATION, name)])), None, "{name:?}");
        }
    }
}
