//! Two half-sessions and what is on its way between them.

use conversation::fmh5::{ConversationType, SyncLevel, TpName};
use conversation::half_session::{Outcome, ProtocolError};
use conversation::{Attach, HalfSession, ReturnCode};

pub(crate) const OK: Outcome = Outcome::Complete(ReturnCode::Ok);

pub(crate) fn attach(conversation_type: ConversationType, sync_level: SyncLevel) -> Attach {
    Attach { conversation_type, sync_level, ..Attach::new(TpName::new("tp")) }
}

/// Moves up to `most` bytes of `from`'s output to `to`; how many it moved.
pub(crate) fn carry(
    from: &mut HalfSession,
    to: &mut HalfSession,
    most: usize,
) -> Result<usize, ProtocolError> {
    let length = from.output().len().min(most);
    let bytes = from.output()[..length].to_vec();
    from.drain(length);
    to.feed(&bytes)?;
    Ok(length)
}

/// Carries in both directions until nothing is on its way.
pub(crate) fn exchange(a: &mut HalfSession, b: &mut HalfSession) {
    while carry(a, b, usize::MAX).unwrap() + carry(b, a, usize::MAX).unwrap() > 0 {}
}

/// A conversation just begun: the caller's side in SEND, the partner's in
/// RECEIVE.
pub(crate) fn pair(conversation_type: ConversationType, sync_level: SyncLevel) -> [HalfSession; 2] {
    let mut caller = HalfSession::new();
    let mut partner = HalfSession::new();
    assert_eq!(caller.allocate(&attach(conversation_type, sync_level)).unwrap(), OK);
    assert_eq!(caller.flush().unwrap(), OK);
    exchange(&mut caller, &mut partner);
    partner.accept().unwrap();
    [caller, partner]
}
