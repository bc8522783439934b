//! Tokens and key sets of anybody: none is good that the host's key did not sign, as
//! it stands.
#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use identity::{NewToken, Signer, Verifier};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_800_000_000;

struct Good {
    verifier: Verifier,
    token: String,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("berth-fuzz-key-{}", std::process::id()));
        let signer = Signer::open(&path, "https://berth").expect("a key");
        let _ = std::fs::remove_file(path);
        let new = NewToken {
            user: service_pool::UserId::new("alice").expect("a user"),
            groups: vec![],
            audience: "a".to_owned(),
            lifetime: Duration::from_secs(300),
            machine: None,
        };
        let token = signer.sign(new, NOW).expect("a token");
        let verifier = Verifier::new(&signer.jwks(), "https://berth").expect("a key set");
        Good { verifier, token }
    })
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Good { verifier, token } = good();
    assert!(verifier.verify(token, "a", NOW).is_ok());
    if let Ok(claims) = verifier.verify(&text, "a", NOW) {
        panic!("{text} is good: {claims:?}");
    }
    // The good one with something else in the place of a part of it.
    if let Some((&first, rest)) = data.split_first() {
        let at = usize::from(first) * token.len() / 256;
        let mut other = token.clone().into_bytes();
        for (place, byte) in other.iter_mut().skip(at).zip(rest) {
            *place = *byte;
        }
        let other = String::from_utf8_lossy(&other).into_owned();
        assert!(other == *token || verifier.verify(&other, "a", NOW).is_err(), "{other}");
    }
    if let Ok(theirs) = Verifier::new(&text, "https://berth") {
        assert!(theirs.verify(token, "a", NOW).is_err());
    }
});
