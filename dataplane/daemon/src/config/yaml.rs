//! A YAML document as a tree in which everything knows its line.
//!
//! Guaranteed: a mapping has each key once, keys are plain words. Left out on purpose, and refused
//! with a sentence: anchors, aliases, tags and several documents in one file.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Nesting deeper than this is refused: no configuration needs it, and it bounds the recursion.
const DEPTH_MAX: usize = 16;

/// What is wrong with the file at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mistake {
    /// Counted from one.
    pub(crate) line: usize,
    /// The field, as `drives[0].memory.size`; empty when the document as a whole is meant.
    pub(crate) field: String,
    /// What is wrong, and what to write instead.
    pub(crate) what: String,
}

/// One value of the document.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `quoted` tells `"1"` from `1`.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    pub(crate) value: Node,
}

impl Node {
    /// The entry of this name, if the value is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}

/// Reads the one document in `text`.
pub(crate) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut tree = Tree {
        parser: Parser::new_from_str(text),
        line: 1,
    };
    let mut document = None;
    loop {
        let (event, span) = tree.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            _ if document.is_some() => {
                return Err(mistake(
                    &span,
                    "",
                    "a second document; the file must have one",
                ));
            }
            event => document = Some(tree.node(event, &span, "", 0)?),
        }
    }
    Ok(document.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

fn mistake(span: &Span, field: &str, what: impl Into<String>) -> Mistake {
    Mistake {
        line: span.start.line(),
        field: field.to_owned(),
        what: what.into(),
    }
}

struct Tree<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
    line: usize,
}

impl<'input> Tree<'input> {
    fn next(&mut self) -> Result<(Event<'input>, Span), Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok((event, span))
            }
            Some(Err(error)) => Err(Mistake {
                line: error.marker().line(),
                field: String::new(),
                what: format!(
                    "not YAML: {} (column {})",
                    error.info(),
                    error.marker().col() + 1
                ),
            }),
            None => Err(Mistake {
                line: self.line,
                field: String::new(),
                what: "not YAML: the file ends too early".to_owned(),
            }),
        }
    }

    fn node(
        &mut self,
        event: Event<'input>,
        span: &Span,
        field: &str,
        depth: usize,
    ) -> Result<Node, Mistake> {
        if depth > DEPTH_MAX {
            return Err(mistake(
                span,
                field,
                format!("nested deeper than {DEPTH_MAX}"),
            ));
        }
        let value = match event {
            Event::Scalar(text, style, 0, None) => scalar(text.into_owned(), style),
            Event::SequenceStart(0, None) => self.list(field, depth)?,
            Event::MappingStart(0, None) => self.map(field, depth)?,
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::MappingStart(..) => {
                return Err(mistake(
                    span,
                    field,
                    "anchors, aliases and tags are not understood",
                ));
            }
            _ => return Err(mistake(span, field, "not YAML: a value is expected")),
        };
        Ok(Node {
            line: span.start.line(),
            value,
        })
    }

    fn list(&mut self, field: &str, depth: usize) -> Result<Value, Mistake> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Value::List(items));
            }
            let field = format!("{field}[{}]", items.len());
            items.push(self.node(event, &span, &field, depth + 1)?);
        }
    }

    fn map(&mut self, field: &str, depth: usize) -> Result<Value, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => return Err(mistake(&span, field, "a field's name must be a plain word")),
            };
            let path = join(field, &key);
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let what = format!("given twice; the first is on line {}", first.line);
                return Err(mistake(&span, &path, what));
            }
            let line = span.start.line();
            let (event, span) = self.next()?;
            let value = self.node(event, &span, &path, depth + 1)?;
            entries.push(Entry { key, line, value });
        }
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    if !quoted && matches!(text.as_str(), "" | "~" | "null") {
        return Value::Null;
    }
    Value::Scalar { text, quoted }
}

/// The path of a field inside another.
pub(crate) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}
