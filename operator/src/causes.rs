//! Errors for people: with what caused them.

use std::error::Error;

/// An error's sentence with those of everything that caused it, each said once.
pub fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Layer {
        says: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn every_cause_once() {
        let root = Layer {
            says: "connection refused",
            source: None,
        };
        let middle = Layer {
            says: "cannot connect: connection refused",
            source: Some(Box::new(root)),
        };
        let top = Layer {
            says: "the API",
            source: Some(Box::new(middle)),
        };
        assert_eq!(whole(&top), "the API: cannot connect: connection refused");
    }
}
