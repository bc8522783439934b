//! Storage keys.

use std::fmt;

/// The access key a transfer is made under: 0 to 15. Under 0 everything is
/// allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
// Private because it is below 16.
pub struct AccessKey(u8);

impl AccessKey {
    /// The access key `number`; `None` if that is not 0 to 15.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The storage key of one page: access key, fetch protection, reference and
/// change, at their places in the key byte of System/370.
///
/// The lowest bit of a key byte is the host's own, [`StorageKey::DIRTY`]: no
/// `StorageKey` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct StorageKey(u8);

impl StorageKey {
    /// Mask of the access key.
    pub const ACCESS: u8 = 0xf0;
    /// Bit: the access key also protects against fetches.
    pub const FETCH_PROTECTION: u8 = 0x08;
    /// Bit: the page was read or written.
    pub const REFERENCE: u8 = 0x04;
    /// Bit: the page was written.
    pub const CHANGE: u8 = 0x02;
    /// Bit of a key byte in the host's hand: the page was written since the
    /// host cleared the bit. Set with [`StorageKey::CHANGE`]; a guest neither
    /// sees nor clears it.
    pub const DIRTY: u8 = 0x01;

    /// The key in `byte`; the host's own bit is dropped.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & 0xfe)
    }

    /// The key byte.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The access key.
    #[must_use]
    pub const fn access(self) -> AccessKey {
        AccessKey(self.0 >> 4)
    }

    /// Whether a store under access key `key` is allowed.
    #[must_use]
    pub const fn allows_store(self, key: AccessKey) -> bool {
        key.0 == 0 || key.0 == self.access().0
    }

    /// Whether a fetch under access key `key` is allowed.
    #[must_use]
    pub const fn allows_fetch(self, key: AccessKey) -> bool {
        self.allows_store(key) || self.0 & Self::FETCH_PROTECTION == 0
    }

    /// Whether the page was read or written.
    #[must_use]
    pub const fn referenced(self) -> bool {
        self.0 & Self::REFERENCE != 0
    }

    /// Whether the page was written.
    #[must_use]
    pub const fn changed(self) -> bool {
        self.0 & Self::CHANGE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_protects_stores_always_and_fetches_only_with_fetch_protection() {
        let [k0, k3, k4] = [0, 3, 4].map(|number| AccessKey::new(number).unwrap());
        let open = StorageKey::from_byte(0x30);
        assert!(open.allows_store(k3) && open.allows_store(k0) && !open.allows_store(k4));
        assert!(open.allows_fetch(k4));
        let closed = StorageKey::from_byte(0x38);
        assert!(closed.allows_fetch(k3) && closed.allows_fetch(k0) && !closed.allows_fetch(k4));
        assert_eq!(AccessKey::new(16), None);
    }

    #[test]
    fn reference_and_change_are_where_system_370_has_them() {
        let key = StorageKey::from_byte(0xf5);
        assert_eq!((key.byte(), key.access().number()), (0xf4, 15));
        assert!(key.referenced() && !key.changed());
    }
}
