//! The console's page, as its users see it.
#![allow(dead_code, unreachable_pub, reason = "not every test binary uses all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Host;
use crate::browser::{At, Browser, Page};

/// How long something on the page may take.
const SOON: Duration = Duration::from_secs(60);
/// As on a desk, and as in a hand.
pub const DESK: (u32, u32) = (1280, 900);
pub const PHONE: (u32, u32) = (390, 844);

/// A browser that is let in.
pub struct Operator {
    pub browser: Browser,
    pub page: Page,
}

impl Operator {
    /// Follows a link of `berth open`.
    pub fn follow(host: &Host, role: &str) -> Self {
        let mut browser = Browser::start().unwrap_or_else(|error| panic!("{error}"));
        let page = Self::link(&mut browser, host, role);
        Self { browser, page }
    }

    fn link(browser: &mut Browser, host: &Host, role: &str) -> Page {
        let (_, link) = host.json(&["open", "--role", role]);
        let page = browser.page(link["url"].as_str().unwrap()).unwrap();
        browser.dress(&page, DESK, false).unwrap();
        browser.wait(&page, "!document.getElementById('console').hidden", SOON).unwrap();
        browser.wait(&page, "document.querySelectorAll('.part').length > 0", SOON).unwrap();
        page
    }

    /// Another page of the same browser, by a link of its own.
    pub fn another(&mut self, host: &Host, role: &str) -> Page {
        Self::link(&mut self.browser, host, role)
    }

    /// Goes to another page.
    pub fn go(&mut self, page: &Page) {
        self.page = page.clone();
        self.browser.front(page).unwrap();
    }

    pub fn ask(&mut self, script: &str) -> Value {
        self.browser.evaluate(&self.page, script).unwrap()
    }

    pub fn wait(&mut self, condition: &str) -> Value {
        let page = self.page.clone();
        self.wait_on(&page, condition)
    }

    pub fn wait_on(&mut self, page: &Page, condition: &str) -> Value {
        let waited = self.browser.wait(page, condition, SOON);
        waited.unwrap_or_else(|error| {
            let text = self.browser.evaluate(page, "document.body.innerText").unwrap();
            panic!("{error}; {:?}; the page: {text}", self.browser.problems())
        })
    }

    /// Presses the button with this text, in the dialog if there is one.
    pub fn press(&mut self, text: &str) {
        let find = format!(
            "[...(document.querySelector('dialog') || document).querySelectorAll('button')]\
             .find((one) => one.textContent === {text:?})"
        );
        self.wait(&format!("!!({find})"));
        self.ask(&format!("({find}).click()"));
    }

    /// The text of the dialog, once there is one.
    pub fn dialog(&mut self) -> String {
        let text = self.wait("document.querySelector('dialog')?.innerText");
        text.as_str().unwrap().to_owned()
    }

    pub fn no_dialog(&mut self) {
        self.wait("!document.querySelector('dialog')");
    }

    /// Bytes of main storage before a point of the picture, and back.
    fn at(&mut self, mib: f64, all: f64) -> At {
        let frame = self.ask(
            "(() => { const f = document.querySelector('.frame'); \
             f.scrollIntoView({ block: 'nearest' }); const box = f.getBoundingClientRect(); \
             return [box.left + box.width / 2, box.top + f.clientTop, f.clientHeight]; })()",
        );
        let number = |place: usize| frame[place].as_f64().unwrap();
        At { x: number(0), y: number(1) + number(2) * mib / all }
    }

    /// Takes what is at one place of main storage and holds it at another one.
    pub fn pull(&mut self, from: f64, to: f64, all: f64) -> At {
        let (from, to) = (self.at(from, all), self.at(to, all));
        self.browser.pull(&self.page, from, to).unwrap();
        to
    }

    pub fn hint(&mut self) -> String {
        self.ask("document.getElementById('hint').textContent").as_str().unwrap().to_owned()
    }

    pub fn drop_at(&mut self, at: At) {
        self.browser.drop_at(&self.page, at).unwrap();
    }

    /// Keeps a picture among the test's output, and in the place of the one of
    /// that name in the directory that `BERTH_PICTURES` names, if there is one.
    pub fn picture(&mut self, name: &str, whole: bool) {
        let bytes = self.browser.picture(&self.page, whole).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{name}");
        let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        std::fs::create_dir_all(&output).unwrap();
        let file = format!("{name}.png");
        std::fs::write(output.join(&file), &bytes).unwrap();
        let renewed = std::env::var_os("BERTH_PICTURES").map(|path| PathBuf::from(path).join(file));
        if let Some(path) = renewed.filter(|path| path.exists()) {
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Nothing went wrong in any page: no script failed, nothing was blocked.
    pub fn is_content(&mut self) {
        assert_eq!(self.browser.problems(), Vec::<String>::new());
    }

    /// Whether everything fits the width of the page.
    pub fn fits(&mut self) {
        let wide = self.ask("document.documentElement.scrollWidth - innerWidth");
        assert!(wide.as_i64().unwrap() <= 0, "{wide} pixels too wide");
    }
}
