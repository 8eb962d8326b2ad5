//! Text in fields of fixed size: serial number, model, firmware revision (section 1.4.2: ASCII, blanks behind), and
//! text that ends with a zero byte.

/// Text padded with blanks. What does not fit is cut; what is not printable ASCII becomes `?`.
#[must_use]
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (place, character) in field.iter_mut().zip(text.chars()) {
        *place = u8::try_from(character)
            .ok()
            .filter(|byte| (b' '..=b'~').contains(byte))
            .unwrap_or(b'?');
    }
    field
}

/// Text padded with zero bytes. What does not fit is cut.
#[must_use]
pub fn zero_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    field
}

/// The text in a field padded with blanks or zero bytes; bytes that are not UTF-8 are replaced.
#[must_use]
pub fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let used = field.get(..end).unwrap_or(field);
    String::from_utf8_lossy(used)
        .trim_end_matches(' ')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_and_cuts() {
        assert_eq!(padded::<6>("ab"), *b"ab    ");
        assert_eq!(padded::<3>("abcd"), *b"abc");
        assert_eq!(padded::<4>("aä\n"), *b"a?? ");
        assert_eq!(zero_padded::<4>("ab"), *b"ab\0\0");
        assert_eq!(text(b"ab c  "), "ab c");
        assert_eq!(text(b"ab\0c"), "ab");
    }
}
