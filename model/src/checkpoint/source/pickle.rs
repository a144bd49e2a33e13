//! Python's pickle format, read without ever running anything.
//!
//! A pickle is a program for a small stack machine, and some of its instructions call any Python function that the file
//! names. Here such a call is only noted down ([`Value::Call`]): whoever reads the result decides what it stands for,
//! from a list of known names. Values live in one table and refer to each other by place, so that shared, cyclic and
//! very deep structures cost nothing and need no recursion. Every instruction takes at least one byte and makes at most
//! one value, and the number of values is bounded.
//!
//! The instructions are those of protocols 0 to 5 as Python's `pickletools` documents them.

use std::collections::HashMap;

/// More values than any checkpoint's description needs (BLIP-2 with an optimizer: some 50,000), and few enough that a
/// hostile file cannot fill the memory (32 bytes each).
const MOST_VALUES: usize = 8 << 20;

/// Modules (or one function of a module) that no checkpoint needs, and that only an attack calls.
const ATTACKS: &[(&str, &[&str])] = &[
    ("os", &[]),
    ("posix", &[]),
    ("nt", &[]),
    ("subprocess", &[]),
    ("sys", &[]),
    ("socket", &[]),
    ("shutil", &[]),
    ("runpy", &[]),
    ("pty", &[]),
    ("ctypes", &[]),
    ("importlib", &[]),
    ("webbrowser", &[]),
    ("pickle", &[]),
    ("_pickle", &[]),
    ("builtins", &["eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "exit", "quit"]),
    (
        "__builtin__",
        &["eval", "exec", "execfile", "compile", "open", "file", "__import__", "input", "raw_input"],
    ),
];

/// The place of a value in [`Pickle::values`].
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
    /// A name that stands for a class or a function.
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// A call that was not made.
    Call {
        callable: Id,
        arguments: Id,
    },
    /// What the pickle's writer keeps outside of it, under this identifier: for PyTorch, a storage.
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

/// Why a pickle could not be read.
#[derive(Debug)]
pub(super) enum PickleError {
    /// It breaks the format.
    Damaged(String),
    /// It asks for a call that no checkpoint needs.
    Attack(String),
}

impl<'a> Pickle<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        let root = machine.run().map_err(|failure| match failure {
            Failure::Damaged(reason) => {
                PickleError::Damaged(format!("{reason} at byte {} of the pickle", machine.position))
            }
            Failure::Attack(callable) => PickleError::Attack(callable),
        })?;
        Ok(Self { values: machine.values, root, length: machine.position })
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    /// Every value, in the order of making.
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

enum Failure {
    Damaged(String),
    Attack(String),
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

const NONE: Id = Id(0);
const OTHER: Id = Id(1);
const FIRST_SMALL: u32 = 2; // the integers 0 to 255 follow; booleans are 0 and 1, as in Python

struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    copied: usize,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut values = vec![Value::None, Value::Other];
        values.extend((0..256).map(Value::Integer));
        Self {
            bytes,
            position: 0,
            values,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    fn run(&mut self) -> Result<Id, Failure> {
        loop {
            match self.byte()? {
                // framing
                0x80 => {
                    let protocol = self.byte()?;
                    if protocol > 5 {
                        return Err(Failure::Damaged(format!("protocol {protocol}, expected at most 5")));
                    }
                }
                0x95 => {
                    self.take(8)?; // a frame's length: a hint for buffered reading
                }
                b'.' => return self.pop(),

                // numbers and other scalars
                b'N' => self.stack.push(NONE),
                0x88 => self.push_integer(1)?,
                0x89 => self.push_integer(0)?,
                b'I' | b'L' => {
                    let line = self.line()?;
                    match line.trim_end_matches('L').trim().parse() {
                        Ok(value) => self.push_integer(value)?,
                        Err(_) => self.stack.push(OTHER),
                    }
                }
                b'J' => {
                    let value = i64::from(i32::from_le_bytes(self.array()?));
                    self.push_integer(value)?;
                }
                b'K' => {
                    let value = i64::from(self.byte()?);
                    self.push_integer(value)?;
                }
                b'M' => {
                    let value = i64::from(u16::from_le_bytes(self.array()?));
                    self.push_integer(value)?;
                }
                0x8a => {
                    let length = usize::from(self.byte()?);
                    self.push_long(length)?;
                }
                0x8b => {
                    let length = self.length_u32()?;
                    self.push_long(length)?;
                }
                b'F' => {
                    self.line()?;
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
                b'U' | 0x8c => {
                    let length = usize::from(self.byte()?);
                    self.push_text(length)?;
                }
                b'T' | b'X' => {
                    let length = self.length_u32()?;
                    self.push_text(length)?;
                }
                0x8d => {
                    let length = self.length_u64()?;
                    self.push_text(length)?;
                }
                b'C' => {
                    let length = usize::from(self.byte()?);
                    self.skip(length)?;
                }
                b'B' => {
                    let length = self.length_u32()?;
                    self.skip(length)?;
                }
                0x8e | 0x96 => {
                    let length = self.length_u64()?;
                    self.skip(length)?;
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
                    self.pop_to_mark()?; // into a set
                    self.top()?;
                }

                // the stack and the memo
                b'0' => {
                    // pops a mark where one lies on top, as Python does
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'p' => {
                    let key = self.line()?.trim().parse().map_err(|_| "a memo key that is no number")?;
                    self.memoise(key)?;
                }
                b'q' => {
                    let key = u32::from(self.byte()?);
                    self.memoise(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.memoise(key)?;
                }
                0x94 => {
                    let key = u32::try_from(self.memo.len()).map_err(|_| "too many values")?;
                    self.memoise(key)?;
                }
                b'g' => {
                    let key = self.line()?.trim().parse().map_err(|_| "a memo key that is no number")?;
                    self.recall(key)?;
                }
                b'h' => {
                    let key = u32::from(self.byte()?);
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.recall(key)?;
                }

                // names, and calls that are not made
                b'c' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    self.push(Value::Global { module, name })?;
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
                b'R' | 0x81 => {
                    let parts = self.pop_last(2)?;
                    self.call(parts[0], parts[1])?;
                }
                0x92 => {
                    let parts = self.pop_last(3)?; // class, positional and named arguments
                    self.call(parts[0], parts[1])?;
                }
                b'i' => {
                    let module = self.line()?;
                    let name = self.line()?;
                    let arguments = self.pop_to_mark()?;
                    let callable = self.add(Value::Global { module, name })?;
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
                    self.pop()?; // the state of an object: attributes, which no tensor of a state dict needs
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
                other => return Err(Failure::Damaged(format!("an unknown instruction (0x{other:02x})"))),
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..length).ok_or("the file ends too early")?;
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        self.take(N)?.try_into().map_err(|_| "the file ends too early".into())
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.array::<1>()?[0])
    }

    fn length_u32(&mut self) -> Result<usize, Failure> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length_u64(&mut self) -> Result<usize, Failure> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| "the file ends too early".into())
    }

    /// The text up to the next line feed, which is passed over.
    fn line(&mut self) -> Result<&'a str, Failure> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("the file ends too early")?;
        let line = self.take(length)?;
        self.position += 1;
        std::str::from_utf8(line).map_err(|_| "a name that is not UTF-8".into())
    }

    fn value(&self, id: Id) -> &Value<'a> {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    fn add(&mut self, value: Value<'a>) -> Result<Id, Failure> {
        if self.values.len() >= MOST_VALUES {
            return Err(Failure::Damaged(format!("more than {MOST_VALUES} values")));
        }
        self.values.push(value);
        Ok(Id((self.values.len() - 1) as u32))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Failure> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_integer(&mut self, value: i64) -> Result<(), Failure> {
        match u8::try_from(value) {
            Ok(small) => self.stack.push(Id(FIRST_SMALL + u32::from(small))),
            Err(_) => self.push(Value::Integer(value))?,
        }
        Ok(())
    }

    fn push_long(&mut self, length: usize) -> Result<(), Failure> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return self.push(Value::Long(bytes));
        }
        // two's complement of any width
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push_integer(i64::from_le_bytes(wide))
    }

    fn push_text(&mut self, length: usize) -> Result<(), Failure> {
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Text(text)),
            // Python 2 wrote bytes as text
            Err(_) => {
                self.stack.push(OTHER);
                Ok(())
            }
        }
    }

    fn skip(&mut self, length: usize) -> Result<(), Failure> {
        self.take(length)?;
        self.stack.push(OTHER);
        Ok(())
    }

    /// The height below which the innermost mark forbids to reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, Failure> {
        if self.stack.len() <= self.floor() {
            return Err("an instruction without its operand".into());
        }
        self.stack.last().copied().ok_or_else(|| "an instruction without its operand".into())
    }

    fn pop(&mut self) -> Result<Id, Failure> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_last(&mut self, count: usize) -> Result<Vec<Id>, Failure> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("an instruction without its operands")?))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Failure> {
        let mark = self.marks.pop().ok_or("an instruction without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn memoise(&mut self, key: u32) -> Result<(), Failure> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), Failure> {
        let id = *self.memo.get(&key).ok_or("a reference to a value that was not kept")?;
        self.stack.push(id);
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), Failure> {
        let top = self.top()?;
        match self.values.get_mut(top.0 as usize) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Call { .. }) => {} // an object of a class of its own: nothing that a state dict needs
            _ => return Err("items for a value that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Failure> {
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

    /// Notes a call down. Only dictionaries are made: they are plain data.
    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), Failure> {
        if let &Value::Global { module, name } = self.value(callable) {
            if is_attack(module, name) {
                return Err(Failure::Attack(format!("{module}.{name}")));
            }
            if matches!(
                (module, name),
                ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict")
            ) {
                let items = self.pairs(arguments)?;
                return self.push(Value::Dict(items));
            }
        }
        self.push(Value::Call { callable, arguments })
    }

    /// The entries in `OrderedDict([(key, value), ...])`: how Python 2 wrote it.
    fn pairs(&mut self, arguments: Id) -> Result<Vec<(Id, Id)>, Failure> {
        let Value::Tuple(arguments) = self.value(arguments) else { return Ok(Vec::new()) };
        let Some(Value::List(items)) = arguments.first().map(|&first| self.value(first)) else {
            return Ok(Vec::new());
        };
        // One list may be named by many calls, each of a few bytes.
        let copied = self.copied.saturating_add(items.len());
        if copied > MOST_VALUES {
            return Err(Failure::Damaged(format!("more than {MOST_VALUES} values")));
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

fn is_attack(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or(module);
    ATTACKS
        .iter()
        .any(|(attack, functions)| *attack == package && (functions.is_empty() || functions.contains(&name)))
}
