//! A client's first packet.

use super::Refusal;

/// Longest first packet, in bytes, as PostgreSQL has it.
pub(crate) const MAX_STARTUP: usize = 10_000;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const MAJOR: u32 = 3;

/// What a client may set when it connects: all of it could be set afterwards, and
/// none of it says who the client is. PostgreSQL's names have no case.
const ALLOWED: [&str; 15] = [
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "timezone",
];

/// Number and secret of a connection, by which a client asks to cancel what runs
/// in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    pub(crate) process: u32,
    pub(crate) secret: u32,
}

/// What a first packet is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// May what follows be encrypted?
    Encrypt,
    /// Cancel what runs in another connection.
    Cancel(CancelKey),
    /// Let me in.
    Startup(Startup),
}

/// What a client wants that is to be let in. Its user and database are not here:
/// who it is the table says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    /// What it sets, of what it may.
    pub(crate) parameters: Vec<(String, String)>,
    /// It speaks a later version of the protocol, or has options of one: these.
    pub(crate) newer: Option<Vec<String>>,
}

/// Takes apart a first packet, without its length.
///
/// # Errors
/// What the client is to be told.
pub(crate) fn first(packet: &[u8]) -> Result<First, Refusal> {
    let Some((code, rest)) = packet.split_first_chunk::<4>() else { return Err(malformed()) };
    match (u32::from_be_bytes(*code), rest.len()) {
        (SSL | GSS, 0) => Ok(First::Encrypt),
        (CANCEL, 8) => {
            let mut numbers =
                rest.chunks_exact(4).map(|number| number.try_into().map_or(0, u32::from_be_bytes));
            let mut next = || numbers.next().unwrap_or(0);
            Ok(First::Cancel(CancelKey { process: next(), secret: next() }))
        }
        (version, _) if version >> 16 == MAJOR => startup(version & 0xffff, rest),
        (version, _) => Err(Refusal::new(
            "0A000",
            format!("protocol {}.{} is not spoken here", version >> 16, version & 0xffff),
        )
        .hint("Use a client that speaks version 3 of the protocol.")),
    }
}

fn malformed() -> Refusal {
    Refusal::new("08P01", "the first packet is not one of PostgreSQL's protocol".to_owned())
}

fn startup(minor: u32, pairs: &[u8]) -> Result<First, Refusal> {
    // Pairs of texts that end in a zero byte, and one zero byte more.
    let pairs = pairs.strip_suffix(b"\0").ok_or_else(malformed)?;
    let mut texts = Vec::new();
    if !pairs.is_empty() {
        let pairs = pairs.strip_suffix(b"\0").ok_or_else(malformed)?;
        for text in pairs.split(|byte| *byte == 0) {
            texts.push(std::str::from_utf8(text).map_err(|_| malformed())?);
        }
    }
    let mut wanted = Startup::default();
    let mut newer = Vec::new();
    for pair in texts.chunks(2) {
        let [name, value] = pair else { return Err(malformed()) };
        if name.starts_with("_pq_.") {
            newer.push((*name).to_owned());
        } else if let Some(parameter) = parameter(name, value)? {
            wanted.parameters.push(parameter);
        }
    }
    wanted.newer = (minor > 0 || !newer.is_empty()).then_some(newer);
    Ok(First::Startup(wanted))
}

/// What is to be set; nothing where the table decides.
fn parameter(name: &str, value: &str) -> Result<Option<(String, String)>, Refusal> {
    let lower = name.to_ascii_lowercase();
    let refused = |why: &str, hint: &'static str| {
        let name: String = name.chars().take(64).collect();
        Err(Refusal::new("42501", format!("{name:?} {why}")).hint(hint))
    };
    match lower.as_str() {
        "user" | "database" => Ok(None),
        "replication" if matches!(value, "" | "false" | "off" | "no" | "0") => Ok(None),
        "replication" => refused("is not for users of machines", "Connect without it."),
        "options" if value.trim().is_empty() => Ok(None),
        "options" => refused(
            "cannot be given when connecting here",
            "Connect without it, and use SET afterwards.",
        ),
        known if ALLOWED.contains(&known) => Ok(Some((lower, value.to_owned()))),
        _ => refused(
            "cannot be set when connecting here",
            "Connect without it, and use SET afterwards.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(code: u32, pairs: &[&str]) -> Vec<u8> {
        let mut packet = code.to_be_bytes().to_vec();
        for text in pairs {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
        packet.push(0);
        packet
    }

    fn code(packet: &[u8]) -> &'static str {
        first(packet).unwrap_err().code
    }

    const V3: u32 = MAJOR << 16;

    #[test]
    fn who_the_client_says_it_is_is_dropped() {
        let asked = ["user", "postgres", "database", "secrets", "TimeZone", "UTC"];
        let parameters = vec![("timezone".to_owned(), "UTC".to_owned())];
        let wanted = First::Startup(Startup { parameters, newer: None });
        assert_eq!(first(&packet(V3, &asked)), Ok(wanted));
        assert_eq!(first(&packet(V3, &[])), Ok(First::Startup(Startup::default())));
    }

    #[test]
    fn what_could_make_the_client_another_is_refused() {
        for name in ["options", "replication", "role", "ROLE", "session_authorization", "x"] {
            assert_eq!(code(&packet(V3, &[name, "postgres"])), "42501", "{name}");
        }
        assert!(first(&packet(V3, &["options", " ", "replication", "off"])).is_ok());
    }

    #[test]
    fn requests_before_the_beginning_are_known() {
        assert_eq!(first(&SSL.to_be_bytes()), Ok(First::Encrypt));
        assert_eq!(first(&GSS.to_be_bytes()), Ok(First::Encrypt));
        let cancel = [&CANCEL.to_be_bytes()[..], &[0, 0, 0, 7, 0, 0, 1, 0]].concat();
        let key = CancelKey { process: 7, secret: 256 };
        assert_eq!(first(&cancel), Ok(First::Cancel(key)));
    }

    #[test]
    fn later_versions_are_talked_down_and_other_ones_refused() {
        let newer = |minor, pairs: &[&str]| match first(&packet(V3 + minor, pairs)) {
            Ok(First::Startup(startup)) => startup.newer,
            other => panic!("{other:?}"),
        };
        assert_eq!(newer(0, &[]), None);
        assert_eq!(newer(2, &[]), Some(vec![]));
        let option = vec!["_pq_.x".to_owned()];
        assert_eq!(newer(0, &["_pq_.x", "1"]), Some(option));
        for version in [2 << 16, 4 << 16, 0] {
            assert_eq!(code(&packet(version, &[])), "0A000");
        }
    }

    #[test]
    fn packets_out_of_form_are_refused() {
        let bad: [&[u8]; 6] = [
            &[],
            &[0, 3, 0],
            &[0, 3, 0, 0],
            &[0, 3, 0, 0, b'a', 0, 0],
            &[0, 3, 0, 0, b'a', 0, b'b', 0],
            &[0, 3, 0, 0, 0xff, 0, b'b', 0, 0],
        ];
        for packet in bad {
            assert_eq!(code(packet), "08P01", "{packet:?}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_gets_more_than_it_may(
            minor in 0_u32..3,
            pairs in prop::collection::vec("[a-zA-Z_.]{0,12}", 0..8),
            tail in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let texts: Vec<_> = pairs.iter().map(String::as_str).collect();
            let mut packet = packet(V3 + minor, &texts);
            packet.extend(tail);
            if let Ok(First::Startup(startup)) = first(&packet) {
                let allowed = |(name, _): &(String, String)| ALLOWED.contains(&name.as_str());
                prop_assert!(startup.parameters.iter().all(allowed));
            }
        }

        #[test]
        fn garbage_is_answered(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = first(&packet);
        }
    }
}
