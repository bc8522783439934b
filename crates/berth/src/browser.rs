//! A browser without a window, to look at the console's page as its users do:
//! Chromium, spoken to over a pipe by the DevTools protocol.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the browser may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Time between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(30);
/// Its names, in the order in which they are tried.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// Why a page cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowserError {
    /// There is none.
    #[error("there is no Chromium on this host; install it with `apt-get install chromium`")]
    Missing,
    /// It does not start, or has ended.
    #[error("Chromium cannot be used: {0}")]
    Broken(#[from] io::Error),
    /// It answers too late.
    #[error("Chromium did not answer within {} s", ANSWER.as_secs())]
    Slow,
    /// It refused, or a script of the page failed.
    #[error("{0}")]
    Refused(String),
    /// Something did not happen.
    #[error("this did not come true within {seconds} s: {condition}")]
    NeverTrue {
        /// The script that was never true.
        condition: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// One page of a browser.
#[derive(Debug, Clone)]
pub(crate) struct Page(String);

/// A running browser; dropped, it ends.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
    /// What went wrong in pages.
    problems: Vec<String>,
    _profile: tempfile::TempDir,
}

/// Where something is on a page, in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

fn spawn(profile: &std::path::Path) -> Result<Child, BrowserError> {
    for name in NAMES {
        // The protocol's pipes are the descriptors 3 and 4.
        let script =
            r#"command -v "$0" >/dev/null || exit 127; exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2"#;
        let found =
            Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", name]).status()?;
        if !found.success() {
            continue;
        }
        let mut command = Command::new("sh");
        command.args(["-c", script, name, "--headless=new", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.display()));
        command.args([
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
        ]);
        if rustix::process::getuid().is_root() {
            // Its sandbox is not for root. It sees pages of this host only.
            command.arg("--no-sandbox");
        }
        command.arg("about:blank");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        return Ok(command.spawn()?);
    }
    Err(BrowserError::Missing)
}

impl Browser {
    /// Starts one.
    pub(crate) fn start() -> Result<Self, BrowserError> {
        let profile = tempfile::Builder::new().prefix("berth-browser-").tempdir()?;
        let mut child = spawn(profile.path())?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (to, from) =
            (child.stdin.take().ok_or_else(gone)?, child.stdout.take().ok_or_else(gone)?);
        let (sender, messages) = channel();
        std::thread::Builder::new().name("browser".into()).spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                let Ok(value) = serde_json::from_slice(&message) else { continue };
                if sender.send(value).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { child, to, messages, last: 0, problems: Vec::new(), _profile: profile })
    }

    /// A new page on `url`.
    pub(crate) fn page(&mut self, url: &str) -> Result<Page, BrowserError> {
        let target = self.ask(None, "Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.ask(None, "Target.attachToTarget", &attach)?;
        let page = Page(attached["sessionId"].as_str().unwrap_or_default().to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            self.tell(&page, domain, &json!({}))?;
        }
        self.tell(&page, "Page.navigate", &json!({ "url": url }))?;
        Ok(page)
    }

    /// Asks the browser, of a page or of itself.
    fn ask(
        &mut self,
        page: Option<&Page>,
        method: &str,
        what: &Value,
    ) -> Result<Value, BrowserError> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": what });
        if let Some(Page(session)) = page {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes)?;
        self.to.flush()?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.messages.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => BrowserError::Slow,
                RecvTimeoutError::Disconnected => {
                    io::Error::new(io::ErrorKind::BrokenPipe, "it has ended").into()
                }
            })?;
            if answer["id"] != id {
                self.hear(&answer);
                continue;
            }
            if let Some(problem) = answer["error"]["message"].as_str() {
                return Err(BrowserError::Refused(format!("{method}: {problem}")));
            }
            return Ok(answer["result"].clone());
        }
    }

    fn tell(&mut self, page: &Page, method: &str, what: &Value) -> Result<(), BrowserError> {
        self.ask(Some(page), method, what).map(drop)
    }

    /// Keeps what went wrong in a page.
    fn hear(&mut self, event: &Value) {
        let what = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                let details = &what["exceptionDetails"];
                self.problems
                    .push(format!("{} {}", details["text"], details["exception"]["description"]));
            }
            // What the host refused, the page tells its user.
            Some("Log.entryAdded")
                if what["entry"]["level"] == "error" && what["entry"]["source"] != "network" =>
            {
                self.problems.push(format!("{} {}", what["entry"]["text"], what["entry"]["url"]));
            }
            _ => {}
        }
    }

    /// What went wrong in pages since the last time.
    pub(crate) fn problems(&mut self) -> Vec<String> {
        while let Ok(event) = self.messages.try_recv() {
            self.hear(&event);
        }
        std::mem::take(&mut self.problems)
    }

    /// What a script of a page's answers.
    pub(crate) fn evaluate(&mut self, page: &Page, script: &str) -> Result<Value, BrowserError> {
        let what = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask(Some(page), "Runtime.evaluate", &what)?;
        if let Some(problem) = answer["exceptionDetails"]["exception"]["description"].as_str() {
            return Err(BrowserError::Refused(format!("{script}: {problem}")));
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until a script's answer is true, or as good as that; the answer.
    pub(crate) fn wait(
        &mut self,
        page: &Page,
        condition: &str,
        limit: Duration,
    ) -> Result<Value, BrowserError> {
        let deadline = Instant::now() + limit;
        loop {
            // What a page that is still loading does not know is not true yet.
            let answer = self.evaluate(page, condition).unwrap_or_default();
            if !matches!(answer, Value::Null | Value::Bool(false)) && answer != "" && answer != 0 {
                return Ok(answer);
            }
            if Instant::now() > deadline {
                let (condition, seconds) = (condition.to_owned(), limit.as_secs());
                return Err(BrowserError::NeverTrue { condition, seconds });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Shows this page before the others: those behind draw nothing.
    pub(crate) fn front(&mut self, page: &Page) -> Result<(), BrowserError> {
        self.tell(page, "Page.bringToFront", &json!({}))
    }

    /// Gives a page this size, and what its user prefers.
    pub(crate) fn dress(
        &mut self,
        page: &Page,
        (width, height): (u32, u32),
        dark: bool,
    ) -> Result<(), BrowserError> {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tell(page, "Emulation.setDeviceMetricsOverride", &size)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.tell(page, "Emulation.setEmulatedMedia", &json!({ "features": features }))
    }

    /// Moves the pointer, with its button `pressed`, `released` or as it is.
    fn pointer(&mut self, page: &Page, kind: &str, at: At, down: bool) -> Result<(), BrowserError> {
        let what = json!({
            "type": kind, "x": at.x, "y": at.y, "clickCount": 1, "pointerType": "mouse",
            "button": if down || kind != "mouseMoved" { "left" } else { "none" },
            "buttons": u8::from(down),
        });
        self.tell(page, "Input.dispatchMouseEvent", &what)
    }

    /// Takes what is at `from` and holds it at `to`.
    pub(crate) fn pull(&mut self, page: &Page, from: At, to: At) -> Result<(), BrowserError> {
        self.pointer(page, "mouseMoved", from, false)?;
        self.pointer(page, "mousePressed", from, true)?;
        for step in 1..=8 {
            let part = f64::from(step) / 8.0;
            let at = At { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
            self.pointer(page, "mouseMoved", at, true)?;
        }
        Ok(())
    }

    /// Lets go of it there.
    pub(crate) fn drop_at(&mut self, page: &Page, at: At) -> Result<(), BrowserError> {
        self.pointer(page, "mouseReleased", at, false)
    }

    /// Types text into what has the focus, as an input method does.
    pub(crate) fn insert(&mut self, page: &Page, text: &str) -> Result<(), BrowserError> {
        self.tell(page, "Input.insertText", &json!({ "text": text }))
    }

    /// Presses a key: its name, its code in old numbers, and 2 for control.
    pub(crate) fn key(
        &mut self,
        page: &Page,
        (key, code): (&str, u32),
        modifiers: u8,
    ) -> Result<(), BrowserError> {
        for kind in ["rawKeyDown", "keyUp"] {
            let what = json!({
                "type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers,
            });
            self.tell(page, "Input.dispatchKeyEvent", &what)?;
        }
        Ok(())
    }

    /// A picture of the page, in the format PNG.
    pub(crate) fn picture(&mut self, page: &Page, whole: bool) -> Result<Vec<u8>, BrowserError> {
        let what = json!({ "format": "png", "captureBeyondViewport": whole });
        let answer = self.ask(Some(page), "Page.captureScreenshot", &what)?;
        let text = answer["data"].as_str().unwrap_or_default();
        unbase64(text).ok_or_else(|| BrowserError::Refused("the picture cannot be read".to_owned()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.ask(None, "Browser.close", &json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Base 64 (RFC 4648, section 4).
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for place in 0..4 {
            let value = match group.get(place) {
                None => 0,
                Some(c @ b'A'..=b'Z') => c - b'A',
                Some(c @ b'a'..=b'z') => c - b'a' + 26,
                Some(c @ b'0'..=b'9') => c - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let three = bits.to_be_bytes();
        bytes.extend_from_slice(three.get(1..group.len())?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::unbase64;

    #[test]
    fn base_64_is_that_of_the_standard() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(unbase64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(unbase64("-"), None);
    }
}
