//! Secrets in the form in which they are handed from person to person: `DHHC-1:XX:BASE64:`.

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::HashFunction;

/// How every secret begins.
const PREFIX: &str = "DHHC-1:";
/// Bytes of the checksum behind the key.
const CHECKSUM_BYTES: usize = 4;
/// Lengths that a key can have, in bytes.
const KEY_BYTES: [usize; 3] = [32, 48, 64];

/// A key that was checked. It is wiped from memory when it is dropped, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: Zeroizing<String>,
    key: Zeroizing<Vec<u8>>,
    transformation: Option<HashFunction>,
}

/// Why text is no secret. Nothing of the text is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Another form.
    #[error("it does not have the form DHHC-1:XX:BASE64:")]
    Form,
    /// An unknown transformation.
    #[error("the two digits behind DHHC-1: are not 00, 01, 02 or 03")]
    Transformation,
    /// No base64.
    #[error("what follows the second colon is not base64")]
    Base64,
    /// A length that no key has.
    #[error("its key has not 32, 48 or 64 bytes")]
    Length,
    /// Another checksum.
    #[error("its checksum is wrong: a part of it was changed")]
    Checksum,
}

impl Secret {
    /// Checks a secret, as tools such as `nvme gen-dhchap-key` make it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let rest = text.strip_prefix(PREFIX).ok_or(SecretError::Form)?;
        let rest = rest.strip_suffix(':').ok_or(SecretError::Form)?;
        let (digits, base64) = rest.split_once(':').ok_or(SecretError::Form)?;
        let transformation = match digits {
            "00" => None,
            "01" => Some(HashFunction::Sha256),
            "02" => Some(HashFunction::Sha384),
            "03" => Some(HashFunction::Sha512),
            _ => return Err(SecretError::Transformation),
        };
        let bytes = STANDARD.decode(base64).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| SecretError::Base64)?;
        let split = bytes.split_last_chunk::<CHECKSUM_BYTES>();
        let (key, checksum) = split.ok_or(SecretError::Length)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SecretError::Length);
        }
        if crc32(key) != u32::from_le_bytes(*checksum) {
            return Err(SecretError::Checksum);
        }
        Ok(Self {
            text: Zeroizing::new(text.into()),
            key: Zeroizing::new(key.to_vec()),
            transformation,
        })
    }

    /// The text that it was made from. Not for people's eyes.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// By what it is bound to the name of whom it is of; `None`: it is used as it is.
    #[must_use]
    pub fn transformation(&self) -> Option<HashFunction> {
        self.transformation
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a host authenticates itself by, and what it wants to know of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The host's.
    pub host: Secret,
    /// The controller's; `None`: the controller need not prove anything.
    pub controller: Option<Secret>,
}

/// CRC-32 as Ethernet has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0xedb8_8320,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python's zlib makes its checksum: base64(key + struct.pack("<I", zlib.crc32(key))) of range(32).
    const GOOD: &str = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

    #[test]
    fn the_checksum_is_that_of_ethernet() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn good_secrets() {
        let secret = Secret::parse(GOOD).unwrap();
        assert_eq!(secret.key(), (0..32).collect::<Vec<u8>>());
        assert_eq!(secret.transformation(), Some(HashFunction::Sha256));
        assert_eq!(secret.text(), GOOD);
        for (digits, wanted) in [
            ("00", None),
            ("02", Some(HashFunction::Sha384)),
            ("03", Some(HashFunction::Sha512)),
        ] {
            let secret = Secret::parse(&GOOD.replace(":01:", &format!(":{digits}:")));
            assert_eq!(secret.unwrap().transformation(), wanted);
        }
        for bytes in KEY_BYTES {
            assert_eq!(
                Secret::parse(&encode(&vec![7; bytes])).unwrap().key(),
                vec![7; bytes]
            );
        }
    }

    fn encode(key: &[u8]) -> String {
        let bytes = [key, &crc32(key).to_le_bytes()].concat();
        format!("DHHC-1:00:{}:", STANDARD.encode(bytes))
    }

    #[test]
    fn bad_secrets() {
        let base64 = &GOOD[10..GOOD.len() - 1];
        let table = [
            (String::new(), SecretError::Form),
            (base64.into(), SecretError::Form),
            (GOOD.to_lowercase(), SecretError::Form),
            (GOOD[..GOOD.len() - 1].into(), SecretError::Form),
            (format!("{GOOD}\n"), SecretError::Form),
            ("DHHC-1:01:".into(), SecretError::Form),
            ("DHHC-1:01::".into(), SecretError::Length),
            (GOOD.replace(":01:", ":04:"), SecretError::Transformation),
            (GOOD.replace(":01:", ":1:"), SecretError::Transformation),
            (GOOD.replace("AAE", "A,E"), SecretError::Base64),
            (GOOD.replace("AAE", "AE"), SecretError::Base64),
            (format!("{GOOD}:"), SecretError::Base64),
            (GOOD.replace("AAE", "AAF"), SecretError::Checksum),
            (GOOD.replace("iaR:", "iaQ:"), SecretError::Checksum),
            (encode(&[7; 31]), SecretError::Length),
            (encode(&[7; 65]), SecretError::Length),
            (encode(&[]), SecretError::Length),
        ];
        for (text, error) in table {
            assert_eq!(Secret::parse(&text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let mut bytes = GOOD.as_bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let parsed = Secret::parse(text);
                // The digits of the transformation are not part of what the checksum is of.
                let is_other_digit = matches!(text.get(7..10), Some("00:" | "03:"));
                assert!(parsed.is_err() || is_other_digit, "{text}");
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn nothing_shows_it() {
        let keys = Keys {
            host: Secret::parse(GOOD).unwrap(),
            controller: Secret::parse(GOOD).ok(),
        };
        assert_eq!(
            format!("{keys:?}"),
            "Keys { host: Secret, controller: Some(Secret) }"
        );
    }
}
