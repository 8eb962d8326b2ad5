//! Reads typed fields out of the tree and collects every mistake, so that one run names them all.

use std::cell::RefCell;

use super::yaml::{Entry, Mistake, Node, Value, join};

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub(crate) fn add(&self, line: usize, field: &str, what: impl Into<String>) {
        let mistake = Mistake {
            line,
            field: field.to_owned(),
            what: what.into(),
        };
        self.0.borrow_mut().push(mistake);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Nothing, or all of them in the file's order.
    pub(crate) fn into_result(self) -> Result<(), Vec<Mistake>> {
        let mut found = self.0.into_inner();
        found.sort();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

/// The fields of one mapping. Every field that may stand there is asked for once; `finish` then
/// reports the others as unknown.
pub(crate) struct Fields<'a> {
    path: String,
    line: usize,
    entries: &'a [Entry],
    known: Vec<&'static str>,
    mistakes: &'a Mistakes,
}

/// A value with its place.
pub(crate) struct Item<'a> {
    pub(crate) path: String,
    pub(crate) node: &'a Node,
}

impl<'a> Fields<'a> {
    /// `None`, and a mistake, if the value is not a mapping.
    pub(crate) fn of(node: &'a Node, path: &str, mistakes: &'a Mistakes) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null if path.is_empty() => &[],
            other => {
                let what = format!("is {}, but must have fields of its own", kind(other));
                mistakes.add(node.line, path, what);
                return None;
            }
        };
        Some(Self {
            path: path.to_owned(),
            line: node.line,
            entries,
            known: Vec::new(),
            mistakes,
        })
    }

    fn find(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let path = join(&self.path, key);
        if matches!(entry.value.value, Value::Null) {
            self.mistakes.add(
                entry.line,
                &path,
                "has no value; write one or remove the field",
            );
            return None;
        }
        Some(Item {
            path,
            node: &entry.value,
        })
    }

    fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    fn missing(&self, key: &str) {
        self.mistakes
            .add(self.line, &self.path, format!("field '{key}' is missing"));
    }

    /// The field, through `parse`; what `parse` says is wrong becomes a mistake.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let item = self.find(key)?;
        let result = match &item.node.value {
            Value::Scalar { text, .. } => parse(text),
            other => Err(format!("is {}, but must be a single value", kind(other))),
        };
        result
            .map_err(|what| self.mistakes.add(item.node.line, &item.path, what))
            .ok()
    }

    /// Like `optional`, and a mistake if the field is not there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key);
        }
        self.optional(key, parse)
    }

    /// `true` or `false`; `false` if the field is not there.
    pub(crate) fn flag(&mut self, key: &'static str) -> bool {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("'{text}' is neither true nor false")),
        };
        self.optional(key, parse).unwrap_or(false)
    }

    /// The fields of the mapping below `key`.
    pub(crate) fn map(&mut self, key: &'static str) -> Option<Fields<'a>> {
        let item = self.find(key)?;
        Fields::of(item.node, &item.path, self.mistakes)
    }

    /// The items of the list below `key`; none if the field is not there.
    pub(crate) fn list(&mut self, key: &'static str) -> Vec<Item<'a>> {
        let Some(list) = self.find(key) else {
            return Vec::new();
        };
        let Value::List(nodes) = &list.node.value else {
            let what = format!("is {}, but must be a list", kind(&list.node.value));
            self.mistakes.add(list.node.line, &list.path, what);
            return Vec::new();
        };
        let item = |(index, node)| Item {
            path: format!("{}[{index}]", list.path),
            node,
        };
        nodes.iter().enumerate().map(item).collect()
    }

    /// The items of a list that must be there. It may be empty, but has to say so: a file that was cut off is a mistake.
    pub(crate) fn required_list(&mut self, key: &'static str) -> Vec<Item<'a>> {
        if !self.has(key) {
            self.missing(key);
        }
        self.list(key)
    }

    /// The one of `keys` that is given; a mistake if it is none or several.
    pub(crate) fn exactly_one(&mut self, keys: &[&'static str]) -> Option<&'static str> {
        let mut given = keys.iter().copied().filter(|key| self.has(key));
        match (given.next(), given.next()) {
            (Some(key), None) => Some(key),
            (None, _) => {
                let what = format!("one of {} is missing", keys.join(", "));
                self.mistakes.add(self.line, &self.path, what);
                None
            }
            (Some(first), Some(second)) => {
                let what = format!("'{first}' and '{second}' exclude each other");
                self.mistakes.add(self.line, &self.path, what);
                None
            }
        }
    }

    /// Reports the fields that nobody asked for.
    pub(crate) fn finish(mut self) {
        self.known.sort_unstable();
        for entry in self.entries {
            if !self.known.contains(&entry.key.as_str()) {
                let what = format!("unknown field; known are {}", self.known.join(", "));
                self.mistakes
                    .add(entry.line, &join(&self.path, &entry.key), what);
            }
        }
    }
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Scalar { quoted: true, .. } => "text",
        Value::Scalar { quoted: false, .. } => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

/// The text of a list's item.
pub(crate) fn text_of<'a>(item: &Item<'a>, mistakes: &Mistakes) -> Option<&'a str> {
    if let Value::Scalar { text, .. } = &item.node.value {
        return Some(text);
    }
    let what = format!("is {}, but must be a single value", kind(&item.node.value));
    mistakes.add(item.node.line, &item.path, what);
    None
}

/// A size: a number of bytes, or one with a unit.
pub(crate) fn size_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 13] = [
        ("", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let wrong = || format!("'{text}' is not a size; write e.g. 1GiB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start();
    let factor = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let size = number
        .checked_mul(factor.ok_or_else(wrong)?)
        .ok_or_else(wrong)?;
    if size == 0 {
        Err(format!("'{text}' is no room at all; write e.g. 1GiB"))
    } else {
        Ok(size)
    }
}

/// A number between `min` and `max`.
pub(crate) fn number(min: u32, max: u32) -> impl FnOnce(&str) -> Result<u32, String> {
    move |text| match text.parse::<u32>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is not a number from {min} to {max}")),
    }
}

/// Text that is not empty.
pub(crate) fn text(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
