//! Where tests make the host fail.

use std::io;

/// A call to the host that can fail and whose failure is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Mapping the destination beside the window.
    MapDestination,
    /// Populating the destination.
    Populate,
    /// Making a chunk read only.
    Protect,
    /// One step of an exchange.
    Swap,
    /// Looking for holes.
    Scan,
    /// Punching a hole.
    Punch,
    /// Mapping what is added to a window.
    MapTail,
    /// Moving the keys' mapping into the window.
    RemapKeys,
    /// Moving the storage's mapping into the window.
    RemapStorage,
    /// The same, failing when the window's old mapping is gone.
    RemapStorageLate,
    /// The same for the keys.
    RemapKeysLate,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "fails only in tests")]
pub(crate) fn check(_: Point) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
thread_local! {
    static FAILING: std::cell::Cell<Option<Point>> = const { std::cell::Cell::new(None) };
    /// Fails once, after it was passed so many times.
    static ONCE: std::cell::Cell<Option<(Point, u32)>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn check(point: Point) -> io::Result<()> {
    let failing = FAILING.with(std::cell::Cell::get) == Some(point);
    let once = ONCE.with(|once| match once.get() {
        Some((at, 0)) if at == point => {
            once.set(None);
            true
        }
        Some((at, left)) if at == point => {
            once.set(Some((at, left - 1)));
            false
        }
        _ => false,
    });
    if failing || once { Err(io::Error::other("injected")) } else { Ok(()) }
}

/// Makes `point` fail once in this thread while `body` runs, after it was
/// passed `after` times. Whether it failed.
#[cfg(test)]
pub(crate) fn once<T>(point: Point, after: u32, body: impl FnOnce() -> T) -> (T, bool) {
    ONCE.with(|once| once.set(Some((point, after))));
    let result = body();
    (result, ONCE.with(std::cell::Cell::take).is_none())
}

/// Makes `point` fail in this thread while `body` runs.
#[cfg(test)]
pub(crate) fn with<T>(point: Option<Point>, body: impl FnOnce() -> T) -> T {
    FAILING.with(|failing| failing.set(point));
    let result = body();
    FAILING.with(|failing| failing.set(None));
    result
}
