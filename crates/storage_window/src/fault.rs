//! Where tests make the host fail.

use std::io;

/// A call to the host that can fail and whose failure is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Mapping the destination beside the window.
    MapDestination,
    /// Populating the destination.
    Populate,
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
    #[cfg(test)]
    /// The same, failing after the window's old mapping is gone.
    RemapStorageLate,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "fails only in tests")]
pub(crate) fn check(_: Point) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
thread_local! {
    static FAILING: std::cell::Cell<Option<Point>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn check(point: Point) -> io::Result<()> {
    let failing = FAILING.with(std::cell::Cell::get) == Some(point);
    if failing { Err(io::Error::other("injected")) } else { Ok(()) }
}

/// Makes `point` fail in this thread while `body` runs.
#[cfg(test)]
pub(crate) fn with<T>(point: Option<Point>, body: impl FnOnce() -> T) -> T {
    FAILING.with(|failing| failing.set(point));
    let result = body();
    FAILING.with(|failing| failing.set(None));
    result
}
