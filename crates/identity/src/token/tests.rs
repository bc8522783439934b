use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use proptest::prelude::*;
use service_pool::{Group, UserId};

use super::signer::encode;
use super::*;

const NOW: u64 = 1_800_000_000;

fn signer() -> (tempfile::TempDir, Signer) {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::open(&folder.path().join("key"), "berth").unwrap();
    (folder, signer)
}

fn token() -> NewToken {
    NewToken {
        user: UserId::new("alice").unwrap(),
        groups: vec![Group::new("staff").unwrap()],
        audience: "files".to_owned(),
        lifetime: DEFAULT_LIFETIME,
        machine: Some(Machine {
            conversation: "1.2f".parse().unwrap(),
            member: "serve-03".parse().unwrap(),
            pool: "serve".parse().unwrap(),
            tpn: "MAIL".parse().unwrap(),
        }),
    }
}

#[test]
fn a_token_says_who_a_machine_is_for_a_short_time() {
    let (_folder, signer) = signer();
    let verifier = Verifier::new(&signer.jwks(), "berth").unwrap();
    let text = signer.sign(token(), NOW).unwrap();
    let claims = verifier.verify(&text, "files", NOW).unwrap();
    assert_eq!(claims.user.as_str(), "alice");
    assert_eq!(claims.machine, token().machine);
    assert_eq!(claims.expires, NOW + 300);
    assert_ne!(signer.sign(token(), NOW).unwrap(), text);

    let check = |audience, now| verifier.verify(&text, audience, now).unwrap_err();
    assert_eq!(check("mail", NOW), VerifyError::Audience);
    assert_eq!(check("files", NOW + 300), VerifyError::Expired);
    assert_eq!(check("files", NOW - 31), VerifyError::Early);
    let other = Verifier::new(&signer.jwks(), "other").unwrap();
    assert_eq!(other.verify(&text, "files", NOW), Err(VerifyError::Issuer));
    let (_folder, stranger) = self::signer();
    let strange = stranger.sign(token(), NOW).unwrap();
    assert_eq!(verifier.verify(&strange, "files", NOW), Err(VerifyError::UnknownKey));
    let long = NewToken { lifetime: MAX_LIFETIME + Duration::from_secs(1), ..token() };
    assert!(matches!(signer.sign(long, NOW), Err(SignError::Lifetime)));
}

#[test]
fn the_key_is_made_once_and_kept_private() {
    let (folder, signer) = signer();
    let path = folder.path().join("key");
    let again = Signer::open(&path, "berth").unwrap();
    assert_eq!(again.key_id(), signer.key_id());
    let mode = |path: &Path| {
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777
    };
    assert_eq!(mode(&path), 0o600);
    std::fs::write(&path, "nonsense").unwrap();
    assert!(matches!(Signer::open(&path, "berth"), Err(SignError::NotAKey)));
    let shown = format!("{signer:?}");
    assert!(!shown.contains("SigningKey"), "{shown}");
}

/// RFC 8037, appendix A: the key, and a signature by it.
#[test]
fn the_rfcs_example_verifies() {
    let seed = BASE64.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&seed.try_into().unwrap());
    let public = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    assert_eq!(BASE64.encode(key.verifying_key().as_bytes()), public);
    assert_eq!(
        encode(&key, "{\"alg\":\"EdDSA\"}", "Example of Ed25519 signing"),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn other_algorithms_and_long_lives_are_refused_though_signed() {
    let (_folder, signer) = signer();
    let verifier = Verifier::new(&signer.jwks(), "berth").unwrap();
    let seed = std::fs::read_to_string(_folder.path().join("key")).unwrap();
    let seed = BASE64.decode(seed.trim_end()).unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&seed.try_into().unwrap());
    let kid = signer.key_id();
    let claims = |exp: u64| {
        format!("{{\"iss\":\"berth\",\"sub\":\"alice\",\"aud\":\"a\",\"iat\":{NOW},\"exp\":{exp}}}")
    };
    let good = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\"}}");
    let verify = |header: &str, exp| verifier.verify(&encode(&key, header, &claims(exp)), "a", NOW);
    assert_eq!(verify(&good, NOW + 60).unwrap().machine, None);
    assert_eq!(verify(&good, NOW + 3601), Err(VerifyError::Lifetime));
    for alg in ["none", "HS256", "ed25519", ""] {
        let header = good.replace("EdDSA", alg);
        assert_eq!(verify(&header, NOW + 60), Err(VerifyError::Algorithm));
    }
    let critical = good.replace('}', ",\"crit\":[\"b64\"]}");
    assert_eq!(verify(&critical, NOW + 60), Err(VerifyError::Algorithm));
}

#[test]
fn key_sets_are_checked() {
    let (_folder, signer) = signer();
    let good = signer.jwks();
    assert_eq!(Verifier::new("{\"keys\":[]}", "i").unwrap_err(), JwksError::NoKey);
    assert_eq!(Verifier::new(&" ".repeat(MAX_JWKS + 1), "i").unwrap_err(), JwksError::TooLong);
    let unnamed = good.replace("\"kid\"", "\"other\"");
    assert_eq!(Verifier::new(&unnamed, "i").unwrap_err(), JwksError::Key(0));
    let weak = format!(
        "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"w\",\"x\":\"{}\"}}]}}",
        BASE64.encode([0; 32])
    );
    assert_eq!(Verifier::new(&weak, "i").unwrap_err(), JwksError::Key(0));
}

proptest! {
    #[test]
    fn garbage_is_refused(token in ".{0,300}", parts in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,90}") {
        let (_folder, signer) = signer();
        let verifier = Verifier::new(&signer.jwks(), "berth").unwrap();
        prop_assert!(verifier.verify(&token, "files", NOW).is_err());
        prop_assert!(verifier.verify(&parts, "files", NOW).is_err());
        prop_assert!(Verifier::new(&token, "berth").is_err());
    }

    #[test]
    fn no_changed_byte_passes(place in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let (_folder, signer) = signer();
        let verifier = Verifier::new(&signer.jwks(), "berth").unwrap();
        let good = signer.sign(token(), NOW).unwrap();
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(verifier.verify(&changed, "files", NOW).is_err());
    }
}
