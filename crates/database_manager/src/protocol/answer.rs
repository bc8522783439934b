//! What the broker itself says to a client.

use super::CancelKey;

/// Characters of a message that are passed on.
const MAX_MESSAGE: usize = 512;

/// Why a client is not served, or not any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// PostgreSQL's code of the error (SQLSTATE).
    pub(crate) code: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: String) -> Self {
        Self { code, message, hint: None }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// As a message of the protocol: a fatal error.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = vec![(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.code)];
        let message: String =
            self.message.chars().filter(|c| *c != '\0').take(MAX_MESSAGE).collect();
        fields.push((b'M', &message));
        fields.extend(self.hint.map(|hint| (b'H', hint)));
        let mut body = Vec::new();
        for (kind, text) in fields {
            body.push(kind);
            put_text(&mut body, text);
        }
        body.push(0);
        message_of(b'E', &body)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// A message of this kind. Bodies here are far below 4 GiB.
pub(crate) fn message_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![kind];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// The client is let in, without having been asked for anything.
pub(crate) fn auth_ok() -> Vec<u8> {
    message_of(b'R', &[0; 4])
}

/// By what the client can cancel what runs here.
pub(crate) fn backend_key(key: CancelKey) -> Vec<u8> {
    let body = [key.process.to_be_bytes(), key.secret.to_be_bytes()].concat();
    message_of(b'K', &body)
}

/// The client may ask, and is in no transaction.
pub(crate) fn ready() -> Vec<u8> {
    message_of(b'Z', b"I")
}

/// Version 3.0 is spoken, without these options.
pub(crate) fn negotiate(options: &[String]) -> Vec<u8> {
    let mut body = 0_u32.to_be_bytes().to_vec();
    body.extend_from_slice(&u32::try_from(options.len()).unwrap_or(0).to_be_bytes());
    options.iter().for_each(|option| put_text(&mut body, option));
    message_of(b'v', &body)
}

/// Code and text of an error of the server's; empty where it has none.
pub(crate) fn fields_of_error(body: &[u8]) -> (String, String) {
    let (mut code, mut message) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = || String::from_utf8_lossy(text).chars().take(MAX_MESSAGE).collect();
        match kind {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_error_of_the_protocol() {
        let refusal = Refusal::new("28000", "no\0 way".to_owned()).hint("Ask.");
        let encoded = refusal.encode();
        assert_eq!(encoded.first(), Some(&b'E'));
        let length = u32::from_be_bytes(encoded[1..5].try_into().unwrap()) as usize;
        assert_eq!(length, encoded.len() - 1);
        let (code, message) = fields_of_error(&encoded[5..]);
        assert_eq!((code.as_str(), message.as_str()), ("28000", "no way"));
        assert!(encoded.ends_with(b"HAsk.\0\0"));
    }

    #[test]
    fn options_that_are_not_known_are_named() {
        let body = [&[0, 0, 0, 0, 0, 0, 0, 1][..], b"_pq_.x\0"].concat();
        assert_eq!(negotiate(&["_pq_.x".to_owned()]), message_of(b'v', &body));
    }
}
