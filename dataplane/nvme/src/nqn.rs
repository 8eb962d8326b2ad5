//! NVMe qualified names (section 4.5).

use core::fmt;
use std::sync::Arc;

/// Bytes of the field that holds a name on the wire.
pub const NQN_FIELD_BYTES: usize = 256;

/// The longest name, bytes.
pub const NQN_MAX: usize = 223;

/// The name that every discovery subsystem answers to.
pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// A valid name of a host or subsystem. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nqn(Arc<str>);

/// Why text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NqnError {
    /// No text at all.
    #[error("an NQN is empty; it looks like nqn.2014-08.org.example:name")]
    Empty,
    /// Too long, with its length in bytes.
    #[error("an NQN has {0} bytes, but at most 223 are allowed")]
    TooLong(usize),
    /// Does not begin as every name does.
    #[error("an NQN begins with nqn.YYYY-MM. and a domain, such as nqn.2014-08.org.example:name")]
    Prefix,
    /// Blanks, control characters or bytes that are not UTF-8.
    #[error("an NQN contains a blank, a control character or bytes that are not UTF-8")]
    Character,
    /// The field has no zero byte behind the name, or something behind the zero byte.
    #[error("an NQN field is not ended by zero bytes")]
    NotTerminated,
}

impl Nqn {
    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, NqnError> {
        if text.is_empty() {
            return Err(NqnError::Empty);
        }
        if text.len() > NQN_MAX {
            return Err(NqnError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(NqnError::Character);
        }
        if !has_prefix(text.as_bytes()) {
            return Err(NqnError::Prefix);
        }
        Ok(Self(text.into()))
    }

    /// Reads the field of a wire structure.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_field(field: &[u8; NQN_FIELD_BYTES]) -> Result<Self, NqnError> {
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(NqnError::NotTerminated)?;
        let (name, _) = field.split_at(end);
        Self::new(core::str::from_utf8(name).map_err(|_| NqnError::Character)?)
    }

    /// The name of the discovery service.
    #[must_use]
    pub fn discovery() -> Self {
        Self(DISCOVERY.into())
    }

    /// Whether this is the discovery service's.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        &*self.0 == DISCOVERY
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a field of a wire structure.
    #[must_use]
    pub fn to_field(&self) -> [u8; NQN_FIELD_BYTES] {
        crate::name::zero_padded(&self.0)
    }
}

/// `nqn.YYYY-MM.` and at least one character behind it.
fn has_prefix(text: &[u8]) -> bool {
    let Some(&[b'n', b'q', b'n', b'.', y1, y2, y3, y4, b'-', m1, m2, b'.']) = text.get(..12) else {
        return false;
    };
    text.len() > 12 && [y1, y2, y3, y4, m1, m2].iter().all(u8::is_ascii_digit)
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nqn({})", self.0)
    }
}

impl core::str::FromStr for Nqn {
    type Err = NqnError;

    fn from_str(text: &str) -> Result<Self, NqnError> {
        Self::new(text)
    }
}

impl core::borrow::Borrow<str> for Nqn {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in [
            DISCOVERY,
            "nqn.2026-11.io.roadstead:abc",
            "nqn.2014-08.org.nvmexpress:uuid:1b4e28ba",
        ] {
            let nqn = Nqn::new(name).unwrap();
            assert_eq!(Nqn::from_field(&nqn.to_field()), Ok(nqn));
        }
        assert!(Nqn::discovery().is_discovery());
    }

    #[test]
    fn bad_names() {
        let long = format!("nqn.2014-08.org.{}", "x".repeat(220));
        for (name, error) in [
            ("", NqnError::Empty),
            (long.as_str(), NqnError::TooLong(236)),
            ("nqn.2014-08.", NqnError::Prefix),
            ("nqn.2014-0x.org", NqnError::Prefix),
            ("iqn.2014-08.org", NqnError::Prefix),
            ("nqn.2014-08.org:a b", NqnError::Character),
            ("nqn.2014-08.org:a\n", NqnError::Character),
        ] {
            assert_eq!(Nqn::new(name), Err(error), "{name}");
        }
        assert_eq!(Nqn::from_field(&[b'n'; 256]), Err(NqnError::NotTerminated));
        let mut field = Nqn::discovery().to_field();
        field[20] = 0xff;
        assert_eq!(Nqn::from_field(&field), Err(NqnError::Character));
    }
}
