//! Server-sent events, as far as the interface uses them.

/// Bytes of what was not understood yet.
const MOST: usize = 8 << 20;

/// Takes bytes and gives the data of events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Bytes without the end of their line.
    rest: Vec<u8>,
    data: Option<String>,
}

/// An event is longer than any should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Events {
    /// More bytes; `hear` gets the data of every event that is complete.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut hear: impl FnMut(String),
    ) -> Result<(), TooLong> {
        for byte in bytes {
            if *byte != b'\n' {
                if self.rest.len() >= MOST {
                    return Err(TooLong);
                }
                self.rest.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.rest).into_owned();
            self.rest.clear();
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                self.data.take().into_iter().for_each(&mut hear);
            } else if let Some(text) = line.strip_prefix("data:") {
                let text = text.strip_prefix(' ').unwrap_or(text);
                let data = self.data.get_or_insert_default();
                if data.len() + text.len() >= MOST {
                    return Err(TooLong);
                }
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(text);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(parts: &[&str]) -> Vec<String> {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for part in parts {
            events.take(part.as_bytes(), |data| all.push(data)).unwrap();
        }
        all
    }

    #[test]
    fn events_come_whole_however_their_bytes_do() {
        let whole = heard(&["event: operation\ndata: {\"a\":1}\n\n:\n\ndata:b\r\ndata: c\r\n\r\n"]);
        assert_eq!(whole, ["{\"a\":1}", "b\nc"]);
        assert_eq!(heard(&["da", "ta: x", "\n", "\nda", "ta: y\n"]), ["x"]);
        assert_eq!(heard(&["id: 1\n\n"]), Vec::<String>::new());
    }

    #[test]
    fn nothing_makes_it_keep_more_than_it_may() {
        let mut events = Events::default();
        let many = vec![b'x'; MOST / 2 + 1];
        assert_eq!(events.take(&many, |_| {}), Ok(()));
        assert_eq!(events.take(&many, |_| {}), Err(TooLong));
    }
}
