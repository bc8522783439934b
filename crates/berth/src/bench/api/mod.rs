//! `berth bench api`: what the operator's station costs.
//!
//! A host of its own has [`PARTITIONS`] partitions in which nothing runs. They
//! are moved on the map by HTTP, [`CHANGES`] times a second, while somebody
//! listens and, if there is a Chromium, a page shows it.

mod http;

use std::io;
use std::time::{Duration, Instant};

use super::{Row, Rows};
use crate::browser::{Browser, BrowserError, Page};
use crate::own_host::{OwnHost, OwnHostError};
use http::Http;

/// Partitions on the map; each has a block, and another one to move to.
const PARTITIONS: u64 = 200;
/// Changes in a second.
const CHANGES: u32 = 100;
/// How long a page has to show everything.
const SHOWN: Duration = Duration::from_secs(30);
/// Calls of each kind in a round.
const CALLS: usize = 1000;
const BLOCK: u64 = 1 << 20;

/// What is wanted: percent of a CPU, milliseconds, round trips.
const CPU_LIMIT: f64 = 5.0;
const TASK_LIMIT: f64 = 50.0;
const CALL_LIMIT: f64 = 3.0;

/// Tells of every task of the page that takes 50 ms or more.
const OBSERVE: &str = "(() => { window.longTasks = []; \
    new PerformanceObserver((list) => { for (const one of list.getEntries()) \
    window.longTasks.push(one.duration); }).observe({ type: 'longtask' }); })()";
/// One that takes 80 ms, to see that it is told.
const BUSY: &str = "new Promise((done) => setTimeout(() => { const end = performance.now() + 80; \
    while (performance.now() < end); setTimeout(done, 200); }))";

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiBenchError {
    #[error(transparent)]
    Host(#[from] OwnHostError),
    #[error("the host's interface cannot be used: {0}")]
    Http(#[from] io::Error),
    #[error(transparent)]
    Browser(#[from] BrowserError),
    #[error("{request} was answered with {status}: {body}")]
    Refused { request: String, status: u16, body: String },
    #[error("the page does not tell of long tasks; this Chromium is too old")]
    Blind,
    #[error("only {made} of {wanted} changes were made: the host or this machine is too slow")]
    TooFew { made: u32, wanted: u32 },
}

/// Measures for so many seconds; `note` is told what happens.
pub(crate) fn run(seconds: u32, note: &dyn Fn(&str)) -> Result<Rows, ApiBenchError> {
    note(&format!("starting a host with {PARTITIONS} partitions in which nothing runs"));
    let host = OwnHost::up(&host_file())?;
    let dir = host.state_dir()?;
    let mut http = Http::connect(&dir.api_socket())?;
    let mut rows = calls(&mut http)?;
    let pid = std::fs::read_to_string(dir.path().join("lock"))?.trim().to_owned();
    let mut maker = Maker { http: &mut http, made: 0 };
    note(&format!("{CHANGES} changes a second for {seconds} s, and nobody looks"));
    let alone = share(&pid, || maker.change_for(seconds))?;
    let mut page = open(&host, note)?;

    note(&format!("nothing changes for {seconds} s"));
    let idle = share(&pid, || {
        std::thread::sleep(Duration::from_secs(seconds.into()));
        Ok(())
    })?;
    note(&format!("{CHANGES} changes a second for {seconds} s"));
    if let Some((browser, page)) = &mut page {
        browser.evaluate(page, "window.longTasks = []")?;
    }
    let busy = share(&pid, || maker.change_for(seconds))?;
    rows.push(row("api.idle.daemon_cpu", idle, "%", CPU_LIMIT));
    rows.push(row("api.changes.unwatched_cpu", alone, "%", CPU_LIMIT));
    rows.push(row("api.changes.daemon_cpu", busy, "%", CPU_LIMIT));
    if let Some((browser, page)) = &mut page {
        let longest = browser.evaluate(page, "Math.max(0, ...window.longTasks)")?;
        let longest = longest.as_f64().ok_or(ApiBenchError::Blind)?;
        rows.push(row("api.changes.longest_task_ms", longest, "ms", TASK_LIMIT));
    }
    Ok(Rows { rows })
}

fn row(name: &str, value: f64, unit: &'static str, limit: f64) -> Row {
    let ratio = Some(value / limit);
    Row { name: name.to_owned(), value, unit, reference: Some(limit), ratio }
}

fn host_file() -> String {
    let mut text = format!("[main_storage]\nsize = \"{}M\"\n", 2 * PARTITIONS);
    for number in 0..PARTITIONS {
        text += &format!(
            "\n[[partition]]\nname = \"p{number}\"\norigin = \"{}M\"\nsize = \"1M\"\n\
             image = \"minimal\"\nautostart = false\n",
            2 * number
        );
    }
    text
}

/// A page that shows it, if there is a browser.
fn open(host: &OwnHost, note: &dyn Fn(&str)) -> Result<Option<(Browser, Page)>, ApiBenchError> {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(error @ BrowserError::Missing) => {
            note(&format!("{error}; without one there is no row for the page"));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let link = host.output(&["open", "--role", "viewer"])?;
    let page = browser.page(link.trim())?;
    let all = format!("document.querySelectorAll('#block .part').length === {PARTITIONS}");
    browser.wait(&page, &all, SHOWN)?;
    browser.evaluate(&page, OBSERVE)?;
    browser.evaluate(&page, BUSY)?;
    let seen = browser.evaluate(&page, "window.longTasks.length")?;
    if seen.as_u64().unwrap_or(0) == 0 {
        return Err(ApiBenchError::Blind);
    }
    Ok(Some((browser, page)))
}

/// Makes changes.
struct Maker<'a> {
    http: &'a mut Http,
    made: u32,
}

impl Maker<'_> {
    /// Moves one partition after the other to its other block, and back in the
    /// next turn; a change that comes late is made at once.
    fn change_for(&mut self, seconds: u32) -> Result<(), ApiBenchError> {
        let (began, before) = (Instant::now(), self.made);
        let wanted = seconds * CHANGES;
        let end = Duration::from_secs(seconds.into());
        while self.made - before < wanted && began.elapsed() < end {
            let due = Duration::from_secs(1) * (self.made - before) / CHANGES;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let number = u64::from(self.made) % PARTITIONS;
            let odd = u64::from(self.made) / PARTITIONS % 2 == 0;
            let to = (2 * number + u64::from(odd)) * BLOCK;
            let request = format!("POST /v1/partitions/p{number}/move");
            ask(self.http, &request, &format!("{{\"to\":{to}}}"))?;
            self.made += 1;
        }
        // A tenth may be missing: this is no measure of the machine.
        let made = self.made - before;
        if made < wanted / 10 * 9 {
            return Err(ApiBenchError::TooFew { made, wanted });
        }
        Ok(())
    }
}

fn ask(http: &mut Http, request: &str, body: &str) -> Result<Vec<u8>, ApiBenchError> {
    let (status, answer) = http.ask(request, body)?;
    if status < 300 {
        return Ok(answer);
    }
    let body = String::from_utf8_lossy(&answer).into_owned();
    Err(ApiBenchError::Refused { request: request.to_owned(), status, body })
}

/// Percent of one CPU that a process has used meanwhile.
fn share(
    pid: &str,
    what: impl FnOnce() -> Result<(), ApiBenchError>,
) -> Result<f64, ApiBenchError> {
    let (before, began) = (used(pid)?, Instant::now());
    what()?;
    let elapsed = began.elapsed().as_secs_f64();
    Ok(100.0 * (used(pid)? - before) / elapsed)
}

/// Seconds of CPU that a process has used in all (proc(5)): the 14th and 15th
/// field, counted from behind the name, which can have anything in it.
fn used(pid: &str) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Calls that change nothing, beside a round trip in which next to nothing is
/// done: a small file of the console's.
fn calls(http: &mut Http) -> Result<Vec<Row>, ApiBenchError> {
    let plan = format!("{{\"name\":\"p0\",\"to\":{BLOCK}}}");
    let kinds = [
        ("GET /console/icon.svg", "", ""),
        ("GET /v1/partitions/p0", "", "api.partition_vs_empty"),
        ("POST /v1/plans/move", plan.as_str(), "api.plan_vs_empty"),
        ("GET /v1/status", "", "api.status_200_vs_empty"),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(CALLS); kinds.len()];
    // By turns, so that what else the machine does meets all of them.
    for _ in 0..CALLS {
        for ((request, body, _), times) in kinds.iter().zip(&mut times) {
            let began = Instant::now();
            ask(http, request, body)?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    let mut medians = times.into_iter().map(median);
    let empty = medians.next().unwrap_or(f64::NAN);
    let names = kinds.iter().skip(1).map(|(_, _, name)| (*name).to_owned());
    let row = |(name, value): (String, f64)| {
        let (reference, ratio) = (Some(empty), Some(value / empty));
        Row { name, value, unit: "us", reference, ratio }
    };
    let mut rows: Vec<Row> = names.zip(medians).map(row).collect();
    // The one that the limit is for.
    rows.extend(rows.get(1).and_then(|plan| plan.ratio).map(|ratio| Row {
        name: "api.plan_round_trips".to_owned(),
        value: ratio,
        unit: "x",
        reference: Some(CALL_LIMIT),
        ratio: Some(ratio / CALL_LIMIT),
    }));
    Ok(rows)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_block_to_move_to() {
        let file = host::HostFile::parse(&host_file()).unwrap();
        assert_eq!(file.partitions.len(), PARTITIONS as usize);
        let map = file.map().unwrap();
        assert!(map.gaps().iter().all(|gap| gap.size() == BLOCK));
    }

    #[test]
    fn cpu_time_of_this_process_grows() {
        let pid = std::process::id().to_string();
        let before = used(&pid).unwrap();
        let began = Instant::now();
        let mut spun = 0_u64;
        while began.elapsed() < Duration::from_secs(60) && used(&pid).unwrap() <= before {
            spun = std::hint::black_box(spun + 1);
        }
        assert!(used(&pid).unwrap() > before);
    }
}
