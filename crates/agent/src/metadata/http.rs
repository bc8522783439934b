//! As much of HTTP/1.1 as one question and its answer take. Pure.

use agent_protocol::MAX_METADATA_PATH;

/// Bytes of a request's head, its empty line included.
pub(super) const MAX_HEAD: usize = 4096;

/// What the bytes of a connection are so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A beginning.
    More,
    /// A whole request for this path and query.
    Get(String),
    /// One that is answered with this status.
    Refused(u16),
}

/// Reads a request; what comes after its head is not looked at.
pub(super) fn request(bytes: &[u8]) -> Request {
    let head = &bytes[..bytes.len().min(MAX_HEAD)];
    if !head.windows(4).any(|window| window == b"\r\n\r\n") {
        return if head.len() < MAX_HEAD { Request::More } else { Request::Refused(431) };
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(path), Some(version), None) = (method, path, version, words.next())
    else {
        return Request::Refused(400);
    };
    if !version.starts_with(b"HTTP/1.") {
        return Request::Refused(505);
    }
    if method != b"GET" {
        return Request::Refused(405);
    }
    if path.len() > MAX_METADATA_PATH {
        return Request::Refused(414);
    }
    match std::str::from_utf8(path) {
        Ok(path) if path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Request::Get(path.to_owned())
        }
        _ => Request::Refused(400),
    }
}

/// A whole answer with a body of JSON.
pub(super) fn answer(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        reason(status),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer that says what is wrong.
pub(super) fn refusal(status: u16) -> Vec<u8> {
    answer(status, format!("{{\"error\":\"{}\"}}\n", reason(status)).as_bytes())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_empty_line() {
        let whole = b"GET /v1/token?audience=a%20b HTTP/1.1\r\nHost: x\r\n\r\nrest";
        let head = whole.len() - 4;
        for end in 0..head {
            assert_eq!(request(&whole[..end]), Request::More);
        }
        for end in head..=whole.len() {
            let path = "/v1/token?audience=a%20b".to_owned();
            assert_eq!(request(&whole[..end]), Request::Get(path));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let long = format!("/{}", "x".repeat(MAX_METADATA_PATH));
        let cases = [
            ("GET /v1/identity HTTP/2", 505),
            ("POST /v1/identity HTTP/1.1", 405),
            ("GET v1 HTTP/1.1", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET /a\tb HTTP/1.1", 400),
            ("GET /\u{e4} HTTP/1.1", 400),
            ("GET /", 400),
            ("", 400),
            (&format!("GET {long} HTTP/1.1"), 414),
        ];
        for (line, status) in cases {
            let bytes = format!("{line}\r\n\r\n");
            assert_eq!(request(bytes.as_bytes()), Request::Refused(status), "{line:?}");
        }
        assert_eq!(request(&[b'x'; MAX_HEAD]), Request::Refused(431));
        assert_eq!(request(&[b'x'; 3 * MAX_HEAD]), Request::Refused(431));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let text = String::from_utf8(answer(200, b"{}")).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("\r\nContent-Length: 2\r\n") && text.ends_with("\r\n\r\n{}"));
    }
}
