//! Quantities: rows from Kubernetes' own rules, and properties against exact arithmetic.

use proptest::prelude::*;
use roadstead_crds::quantity::{QuantityError as E, exact, for_people, parse_bytes};

#[test]
fn parses() {
    let rows = [
        ("0", 0),
        ("1", 1),
        ("+5", 5),
        ("-0", 0),
        ("1Ki", 1024),
        ("1.5Gi", 1_610_612_736),
        ("10G", 10_000_000_000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 1_000_000_000_000_000_000),
        ("2000m", 2),
        (".5Ki", 512),
        ("5.", 5),
        ("10e-1", 1),
        ("7Ei", 7 << 60),
        ("9223372036854775807", u64::MAX / 2),
    ];
    for (text, bytes) in rows {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
}

#[test]
fn refuses() {
    for text in [
        "", "Gi", ".", "1.2.3", "1 Gi", "1gi", "1KiB", "0x10", "1e", "e5", "--1", "1_000",
        "1e-3Ki", "٣",
    ] {
        assert_eq!(parse_bytes(text), Err(E::Syntax(text.into())), "{text}");
    }
    assert_eq!(parse_bytes("-1Gi"), Err(E::Negative("-1Gi".into())));
    assert_eq!(parse_bytes("0.1"), Err(E::Fraction("0.1".into())));
    assert_eq!(parse_bytes("1500m"), Err(E::Fraction("1500m".into())));
    assert_eq!(parse_bytes("1n"), Err(E::Fraction("1n".into())));
    for text in [
        "8Ei",
        "9223372036854775808",
        "1e30",
        "1e100000000",
        "999999999999999999999999999Ei",
    ] {
        let refused = parse_bytes(text);
        assert!(
            matches!(refused, Err(E::TooLarge(_) | E::Syntax(_))),
            "{text}: {refused:?}"
        );
    }
}

#[test]
fn shows() {
    let rows = [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1536, "1.5Ki"),
        (10 << 30, "10Gi"),
        ((10 << 30) - 1, "9.9Gi"),
        (1_999 << 20, "1.9Gi"),
        (150 << 40, "150Ti"),
        (u64::MAX, "15.9Ei"),
    ];
    for (bytes, text) in rows {
        assert_eq!(for_people(bytes), text);
    }
}

proptest! {
    #[test]
    fn exact_comes_back(bytes in 0_u64..(1 << 63)) {
        prop_assert_eq!(parse_bytes(&exact(bytes)), Ok(bytes));
        prop_assert_eq!(parse_bytes(&bytes.to_string()), Ok(bytes));
    }

    #[test]
    fn whole_extents_come_back_short(mib in 0_u64..(1 << 43)) {
        let text = exact(mib << 20);
        prop_assert_eq!(parse_bytes(&text), Ok(mib << 20));
        prop_assert!(mib == 0 || text.ends_with('i'), "{}", text);
    }

    #[test]
    fn people_read_at_most_what_is_there(bytes in 0_u64..(1 << 62)) {
        // Rounded down, and by less than a tenth.
        let shown = for_people(bytes);
        match parse_bytes(&shown) {
            Ok(read) => {
                prop_assert!(read <= bytes);
                prop_assert!(bytes - read <= bytes / 10);
            }
            // A tenth of a binary unit is not always whole.
            Err(error) => prop_assert_eq!(error, E::Fraction(shown)),
        }
    }

    #[test]
    fn nothing_panics(text in ".{0,40}") {
        let _ = parse_bytes(&text);
    }
}
