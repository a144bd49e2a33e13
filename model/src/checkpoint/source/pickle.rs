//! Python's pickle format, read without executing anything.
//!
//! A pickle is a program for a stack machine, and some of its instructions call a Python function that the
//! file names. Such a call is only recorded ([`Value::Call`]); the reader of the result recognises a few of
//! them by name. Values are stored in one table and refer to each other by index, so that shared, cyclic and
//! deep structures need no copy and no recursion. Every instruction takes at least one byte and makes at most
//! two values, and the number of values is bounded.
//!
//! The instructions are those of protocols 0 to 5 in Python's `pickletools`.

use std::collections::HashMap;

/// Maximum number of values: more than any checkpoint's description needs (BLIP-2 with an optimizer: some
/// 50,000), and few enough that a malicious file cannot fill the memory (32 bytes each).
const MAX_VALUES: usize = 8 << 20;

/// The index of a value in [`Pickle::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// One value.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Integer(i64),
    Text(&'a str),
    /// A number too long for an `i64`, little-endian.
    Long(&'a [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The name of a class or a function.
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// A call that was not executed.
    Call {
        callable: Id,
        arguments: Id,
    },
    /// An object that is stored outside of the pickle under this identifier: in PyTorch, a storage.
    Persistent(Id),
    /// A value that no tensor needs: a floating-point number, bytes, a set.
    Other,
}

/// A pickle, read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// Bytes up to and including its last instruction.
    pub(super) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`, or says what is wrong with it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine::new(bytes);
        let root =
            machine.run().map_err(|reason| format!("{reason} at byte {} of the pickle", machine.position))?;
        Ok(Self { values: machine.values, root, length: machine.position })
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    /// Every value, in the order of the file.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }

    /// The full name of a class or function: `collections.OrderedDict`.
    pub(super) fn callable_name(&self, id: Id) -> String {
        match self.value(id) {
            Value::Global { module, name } => format!("{module}.{name}"),
            _ => "the result of another call".to_owned(),
        }
    }
}

const NONE: Id = Id(0);
const OTHER: Id = Id(1);
const FIRST_SMALL: u32 = 2; // the integers 0 to 255 follow; booleans are 0 and 1, as in Python

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    copied: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut values = vec![Value::None, Value::Other];
        values.extend((0..256).map(Value::Integer));
        Self { bytes, values, ..Self::default() }
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            match self.byte()? {
                // framing
                0x80 => match self.byte()? {
                    0..=5 => {}
                    protocol => return Err(format!("protocol {protocol}, expected at most 5")),
                },
                0x95 => drop(self.take(8)?), // a frame's length
                b'.' => return self.pop(),

                // numbers and other scalars
                b'N' => self.stack.push(NONE),
                0x88 => self.push_integer(1)?,
                0x89 => self.push_integer(0)?,
                b'I' | b'L' => match self.line()?.trim_end_matches('L').trim().parse() {
                    Ok(value) => self.push_integer(value)?,
                    Err(_) => self.stack.push(OTHER),
                },
                b'J' => {
                    let value = self.number(4)? as i32;
                    self.push_integer(value.into())?;
                }
                byte @ (b'K' | b'M') => {
                    let value = self.number(if byte == b'K' { 1 } else { 2 })?;
                    self.push_integer(value as i64)?;
                }
                byte @ (0x8a | 0x8b) => {
                    let bytes = self.bytes(if byte == 0x8a { 1 } else { 4 })?;
                    self.push_long(bytes)?;
                }
                b'F' => {
                    self.line()?; // a number in text
                    self.stack.push(OTHER);
                }
                b'G' => {
                    self.take(8)?;
                    self.stack.push(OTHER);
                }

                // text and bytes
                b'S' | b'V' => {
                    let line = self.line()?;
                    self.push(Value::Text(line.trim_matches(['\'', '"'])))?;
                }
                b'U' | 0x8c => self.push_text(1)?,
                b'T' | b'X' => self.push_text(4)?,
                0x8d => self.push_text(8)?,
                byte @ (b'C' | b'B' | 0x8e | 0x96) => {
                    self.bytes(match byte {
                        b'C' => 1,
                        b'B' => 4,
                        _ => 8,
                    })?;
                    self.stack.push(OTHER);
                }

                // containers
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                0x8f => self.stack.push(OTHER), // a set
                b'(' => self.marks.push(self.stack.len()),
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                byte @ 0x85..=0x87 => {
                    let items = self.pop_last(usize::from(byte - 0x84))?;
                    self.push(Value::Tuple(items))?;
                }
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(items))?;
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    self.set_items(&items)?;
                }
                0x91 => {
                    self.pop_to_mark()?; // a frozen set
                    self.stack.push(OTHER);
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(&[item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let items = self.pop_last(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                0x90 => {
                    self.pop_to_mark()?; // items of a set
                    self.top()?;
                }

                // the stack and the memo
                b'0' if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()), // as Python does
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_to_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                byte @ (b'p' | b'q' | b'r' | 0x94) => {
                    let (key, top) = (self.key(byte)?, self.top()?);
                    self.memo.insert(key, top);
                }
                byte @ (b'g' | b'h' | b'j') => {
                    let key = self.key(byte)?;
                    let id = self.memo.get(&key).ok_or("a reference to a value that was not kept")?;
                    self.stack.push(*id);
                }

                // names, and calls that are not executed
                b'c' => {
                    let global = Value::Global { module: self.line()?, name: self.line()? };
                    self.push(global)?;
                }
                0x93 => {
                    let parts = self.pop_last(2)?;
                    let (&Value::Text(module), &Value::Text(name)) =
                        (self.value(parts[0]), self.value(parts[1]))
                    else {
                        return Err("a class whose name is no text".into());
                    };
                    self.push(Value::Global { module, name })?;
                }
                byte @ (b'R' | 0x81 | 0x92) => {
                    // class, positional arguments and, in 0x92, named arguments
                    let parts = self.pop_last(if byte == 0x92 { 3 } else { 2 })?;
                    self.call(parts[0], parts[1])?;
                }
                b'i' => {
                    let global = Value::Global { module: self.line()?, name: self.line()? };
                    let arguments = self.pop_to_mark()?;
                    let callable = self.add(global)?;
                    let arguments = self.add(Value::Tuple(arguments))?;
                    self.call(callable, arguments)?;
                }
                b'o' => {
                    let mut arguments = self.pop_to_mark()?;
                    if arguments.is_empty() {
                        return Err("an object without a class".into());
                    }
                    let callable = arguments.remove(0);
                    let arguments = self.add(Value::Tuple(arguments))?;
                    self.call(callable, arguments)?;
                }
                b'b' => {
                    self.pop()?; // the attributes of an object, which no tensor of a state dict needs
                    self.top()?;
                }
                b'P' => {
                    let line = self.line()?;
                    let id = self.add(Value::Text(line))?;
                    self.push(Value::Persistent(id))?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id))?;
                }
                other => return Err(format!("an unknown instruction (0x{other:02x})")),
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..length).ok_or("the file ends too early")?;
        self.position += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Bytes that follow their length, a number of `width` bytes.
    fn bytes(&mut self, width: usize) -> Result<&'a [u8], String> {
        let length = self.number(width)?;
        self.take(usize::try_from(length).map_err(|_| "the file ends too early")?)
    }

    /// The key of a memo entry: in text, of one byte, of four, or the next free one.
    fn key(&mut self, instruction: u8) -> Result<u64, String> {
        match instruction {
            b'p' | b'g' => {
                let key = self.line()?.trim().parse::<u32>();
                key.map(u64::from).map_err(|_| "a memo key that is no number".into())
            }
            b'q' | b'h' => self.number(1),
            b'r' | b'j' => self.number(4),
            _ => Ok(self.memo.len() as u64),
        }
    }

    /// The text up to the next line feed, which is consumed.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("the file ends too early")?;
        let line = self.take(length)?;
        self.position += 1;
        std::str::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    fn add(&mut self, value: Value<'a>) -> Result<Id, String> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        Ok(Id((self.values.len() - 1) as u32))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_integer(&mut self, value: i64) -> Result<(), String> {
        match u8::try_from(value) {
            Ok(small) => self.stack.push(Id(FIRST_SMALL + u32::from(small))),
            Err(_) => self.push(Value::Integer(value))?,
        }
        Ok(())
    }

    fn push_long(&mut self, bytes: &'a [u8]) -> Result<(), String> {
        if bytes.len() > 8 {
            return self.push(Value::Long(bytes));
        }
        // two's complement of any width
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push_integer(i64::from_le_bytes(wide))
    }

    /// Pushes a text that follows its length, a number of `width` bytes.
    fn push_text(&mut self, width: usize) -> Result<(), String> {
        match std::str::from_utf8(self.bytes(width)?) {
            Ok(text) => self.push(Value::Text(text))?,
            Err(_) => self.stack.push(OTHER), // Python 2 wrote bytes as text
        }
        Ok(())
    }

    /// The height of the innermost mark: no instruction pops below it.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, String> {
        if self.stack.len() <= self.floor() {
            return Err("an instruction without its operand".into());
        }
        self.stack.last().copied().ok_or_else(|| "an instruction without its operand".into())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_last(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("an instruction without its operands")?))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("an instruction without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        match self.values.get_mut(top.0 as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Call { .. }) => {} // an object of another class, which no state dict needs
            _ => return Err("items for a value that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("a key without its value".into());
        }
        match self.values.get_mut(top.0 as usize) {
            Some(Value::Dict(dict)) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Some(Value::Call { .. }) => {}
            _ => return Err("items for a value that is no dictionary".into()),
        }
        Ok(())
    }

    /// Records a call. Only dictionaries are made: they are plain data.
    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), String> {
        let value = match self.value(callable) {
            Value::Global { module: "collections", name: "OrderedDict" | "defaultdict" }
            | Value::Global { module: "builtins" | "__builtin__", name: "dict" } => {
                Value::Dict(self.pairs(arguments)?)
            }
            _ => Value::Call { callable, arguments },
        };
        self.push(value)
    }

    /// The entries in `OrderedDict([(key, value), ...])`, the form of Python 2.
    fn pairs(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, String> {
        let Value::Tuple(arguments) = self.value(arguments) else { return Ok(Vec::new()) };
        let Some(Value::List(items)) = arguments.first().map(|&first| self.value(first)) else {
            return Ok(Vec::new());
        };
        // many calls of a few bytes each may name the same list
        let copied = self.copied.saturating_add(items.len());
        if copied > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        let pair = |&item: &Id| match self.value(item) {
            Value::List(pair) | Value::Tuple(pair) => <[Id; 2]>::try_from(pair.as_slice()).ok(),
            _ => None,
        };
        let pairs = items.iter().filter_map(pair).map(|[key, value]| (key, value)).collect();
        self.copied = copied;
        Ok(pairs)
    }
}
