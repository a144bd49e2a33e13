//! Files of `torch.save`: the zip archive of PyTorch 1.6 and later, and the stream of pickles before it.
//!
//! Both contain a pickle that describes the tensors, and the storages of the tensors. The functions by which
//! PyTorch describes a tensor are recognised by name ([`describe`]); nothing is called.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::file::MappedFile;
use super::pickle::{Id, Pickle, Value};
use super::stored::{Checksum, Data, ElementType, Stored, element_count};
use super::{Opened, SourceError};

const ZIP: &str = "torch.save zip";
const LEGACY: &str = "torch.save (before PyTorch 1.6)";

/// Keys under which trainers store a state dict, in order of precedence.
const WRAPPERS: &[&str] = &["state_dict", "model_state_dict", "model", "module"];

/// Maximum nesting of these keys: `{"model": {"module": {...}}}` is two.
const MAX_WRAPPERS: usize = 8;

/// Maximum length of a name: a few bytes suffice to use one long text as a key again.
const MAX_NAME: usize = 4096;

/// The start of every legacy file: PyTorch's magic number as a pickle.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Range and checksum of the storages, by key.
type Storages = HashMap<String, (Range<usize>, Option<Arc<Checksum>>)>;

/// Whether a file begins like a zip archive.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
}

pub(super) fn open_zip(file: &Arc<MappedFile>) -> Result<Opened, SourceError> {
    let damaged = |reason: String| file.damaged(ZIP, reason);
    let mut archive =
        zip::ZipArchive::new(Cursor::new(file.bytes())).map_err(|error| damaged(error.to_string()))?;
    let mut records = HashMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(error.to_string()))?;
        let name = entry.name().map_err(|error| damaged(error.to_string()))?.into_owned();
        if entry.encrypted() || entry.compression() != zip::CompressionMethod::Stored {
            return Err(damaged(format!("{name} is compressed, which torch.save never does")));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let length = usize::try_from(entry.size()).ok();
        let range = start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?));
        let range = range
            .filter(|range| entry.size() == entry.compressed_size() && file.slice(range).is_some())
            .ok_or_else(|| damaged(format!("{name} claims {} bytes, more than there are", entry.size())))?;
        // 0 if PyTorch was asked to omit checksums
        let checksum = (entry.crc32() != 0).then(|| {
            Arc::new(Checksum { range: range.clone(), expected: entry.crc32(), is_sound: OnceLock::new() })
        });
        records.insert(name, (range, checksum));
    }
    let folder = records
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|folder| folder.is_empty() || folder.ends_with('/'))
        .min_by_key(|folder| folder.len())
        .ok_or_else(|| file.unsupported("a zip archive without data.pkl, so not a file of torch.save"))?
        .to_owned();
    if records.contains_key(&format!("{folder}constants.pkl")) {
        return Err(
            file.unsupported("a TorchScript archive; save the model's state_dict() with torch.save instead")
        );
    }
    if let Some((range, _)) = records.get(&format!("{folder}byteorder"))
        && file.slice(range) != Some(b"little")
    {
        return Err(file.unsupported("written with another byte order than little-endian"));
    }
    let pickle = records.get(&format!("{folder}data.pkl")).and_then(|(range, _)| file.slice(range));
    let pickle = read_pickle(pickle.unwrap_or_default(), file, ZIP)?;
    let prefix = format!("{folder}data/");
    let storages = records
        .into_iter()
        .filter_map(|(name, record)| Some((name.strip_prefix(&prefix)?.to_owned(), record)))
        .collect();
    StateDict { pickle: &pickle, file, format: ZIP, storages }.open()
}

/// Whether a file begins with the legacy format's magic number.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x80])
        && bytes
            .get(..32.min(bytes.len()))
            .is_some_and(|start| start.windows(MAGIC.len()).any(|window| window == MAGIC))
}

pub(super) fn open_legacy(file: &Arc<MappedFile>) -> Result<Opened, SourceError> {
    let bytes = file.bytes();
    let mut position = 0;
    let mut next = || -> Result<Pickle<'_>, SourceError> {
        let pickle = read_pickle(bytes.get(position..).unwrap_or_default(), file, LEGACY)?;
        position += pickle.length;
        Ok(pickle)
    };
    let magic = next()?;
    if !matches!(magic.value(magic.root()), Value::Long(long) if *long == MAGIC) {
        return Err(file.damaged(LEGACY, "another magic number"));
    }
    let protocol = next()?;
    if !matches!(protocol.value(protocol.root()), Value::Integer(1001)) {
        return Err(file.unsupported("of another version than PyTorch's legacy protocol 1001"));
    }
    let system = next()?;
    let little_endian = entries(&system, system.root()).find(|(key, _)| *key == "little_endian");
    if little_endian.is_none_or(|(_, value)| !matches!(system.value(value), Value::Integer(1))) {
        return Err(file.unsupported("written with another byte order than little-endian"));
    }
    let pickle = next()?;
    let keys = next()?;
    let Value::List(keys_in_order) = keys.value(keys.root()) else {
        return Err(file.damaged(LEGACY, "no list of storages after the tensors"));
    };
    // the stream has no element sizes; they follow from the tensors of a storage
    let mut widths = HashMap::new();
    for value in pickle.values() {
        if let Value::Persistent(id) = value
            && let Ok(storage) = storage(&pickle, *id)
        {
            widths.insert(storage.key, storage.element_type.map_or(Some(1), ElementType::size));
        }
    }
    let mut storages = Storages::new();
    for key in keys_in_order {
        let Some(key) = text(&keys, *key) else {
            return Err(file.damaged(LEGACY, "a storage whose key is no text"));
        };
        let Some(&Some(width)) = widths.get(key) else {
            return Err(file.unsupported(format!("storage {key} is of a type that cannot be read")));
        };
        let lacking = || file.damaged(LEGACY, format!("storage {key} runs past the end of the file"));
        let count = bytes.get(position..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(lacking)?;
        let start = position + 8;
        let end = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| start.checked_add(count.checked_mul(width)?))
            .filter(|&end| end <= bytes.len())
            .ok_or_else(lacking)?;
        storages.insert(key.to_owned(), (start..end, None));
        position = end;
    }
    StateDict { pickle: &pickle, file, format: LEGACY, storages }.open()
}

fn read_pickle<'a>(
    bytes: &'a [u8],
    file: &MappedFile,
    format: &'static str,
) -> Result<Pickle<'a>, SourceError> {
    Pickle::read(bytes).map_err(|reason| file.damaged(format, reason))
}

/// The entries of a dictionary with text keys; none if the value is no dictionary.
fn entries<'p>(pickle: &'p Pickle<'_>, id: Id) -> impl Iterator<Item = (&'p str, Id)> {
    let entries: &[(Id, Id)] = match pickle.value(id) {
        Value::Dict(entries) => entries,
        _ => &[],
    };
    let name = |key| text(pickle, key).filter(|name| name.len() <= MAX_NAME);
    entries.iter().filter_map(move |&(key, value)| Some((name(key)?, value)))
}

fn text<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p str> {
    match pickle.value(id) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The tensors of a pickle, looked up in its storages.
struct StateDict<'a> {
    pickle: &'a Pickle<'a>,
    file: &'a Arc<MappedFile>,
    format: &'static str,
    storages: Storages,
}

impl StateDict<'_> {
    fn open(&self) -> Result<Opened, SourceError> {
        let mut left_out = BTreeSet::new();
        let root = self.find(&mut left_out)?;
        let mut tensors = BTreeMap::new();
        for (name, value) in entries(self.pickle, root) {
            if let Some(stored) = self.tensor(name, value)? {
                tensors.insert(name.to_owned(), stored);
            } else {
                left_out.insert(name);
            }
        }
        let left_out = left_out.into_iter().map(str::to_owned).collect();
        Ok(Opened { tensors, left_out, graph: None })
    }

    /// The dictionary of tensors: the root, or a dictionary nested in it.
    fn find<'a>(&'a self, left_out: &mut BTreeSet<&'a str>) -> Result<Id, SourceError> {
        let mut dictionary = self.pickle.root();
        let mut place = "the whole of the file".to_owned();
        for _ in 0..MAX_WRAPPERS {
            match self.pickle.value(dictionary) {
                Value::Dict(_) => {}
                Value::Call { callable, .. } => return Err(self.not_called(place, *callable)),
                _ => return Err(self.file.unsupported(format!("{place} is no dictionary of tensors"))),
            }
            let wrapped = WRAPPERS.iter().find_map(|wrapper| {
                let found = entries(self.pickle, dictionary).filter(|(key, _)| key == wrapper).last()?;
                let is_wrapped = match self.pickle.value(found.1) {
                    Value::Dict(entries) => !entries.is_empty(),
                    Value::Call { .. } => !self.is_tensor(found.1),
                    _ => false,
                };
                is_wrapped.then_some(found)
            });
            match wrapped {
                Some((wrapper, inner)) => {
                    let keys = entries(self.pickle, dictionary).map(|(key, _)| key);
                    left_out.extend(keys.filter(|key| *key != wrapper));
                    (dictionary, place) = (inner, format!("`{wrapper}`"));
                }
                None if entries(self.pickle, dictionary).any(|(_, value)| self.is_tensor(value)) => {
                    return Ok(dictionary);
                }
                None => {
                    for (key, value) in entries(self.pickle, dictionary) {
                        if let Value::Call { callable, .. } = self.pickle.value(value) {
                            return Err(self.not_called(format!("`{key}`"), *callable));
                        }
                    }
                    let keys: Vec<_> = entries(self.pickle, dictionary).take(8).map(|(key, _)| key).collect();
                    let reason = format!(
                        "{place} holds no tensors, nor a dictionary of them under one of {WRAPPERS:?} (its keys: {keys:?})"
                    );
                    return Err(self.file.unsupported(reason));
                }
            }
        }
        Err(self.file.unsupported("dictionaries wrapped too deep"))
    }

    fn is_tensor(&self, value: Id) -> bool {
        !matches!(describe(self.pickle, value), Ok(None))
    }

    fn not_called(&self, place: String, callable: Id) -> SourceError {
        SourceError::Call {
            place,
            callable: self.pickle.callable_name(callable),
            advice: "save the model's state_dict() with torch.save instead",
            path: self.file.path().to_owned(),
        }
    }

    /// A tensor of the state dict, or `None` where the value is plain data.
    fn tensor(&self, name: &str, value: Id) -> Result<Option<Stored>, SourceError> {
        let fail = |reason: String| self.file.tensor(name, reason);
        let description = match describe(self.pickle, value) {
            Ok(Some(description)) => description,
            Ok(None) => match self.pickle.value(value) {
                Value::Call { callable, .. } => {
                    return Err(self.not_called(format!("tensor {name}"), *callable));
                }
                _ => return Ok(None),
            },
            Err(reason) => return Err(fail(reason.to_owned())),
        };
        let Description { storage, element_type, offset, shape, strides } = description;
        let (range, checksum) = self.storages.get(storage.key).ok_or_else(|| {
            self.file
                .damaged(self.format, format!("tensor {name} is in storage {}, which is absent", storage.key))
        })?;
        let stored = |data, checksum| {
            Some(Stored { file: Arc::clone(self.file), element_type, shape: shape.clone(), data, checksum })
        };
        let count = element_count(&shape).ok_or_else(|| fail("its shape overflows".to_owned()))?;
        let Some(size) = element_type.size() else {
            return Ok(stored(Data::Plain { range: range.clone(), strides: None }, None));
        };
        if count == 0 {
            return Ok(stored(Data::Plain { range: range.start..range.start, strides: None }, None));
        }
        // the last element that the strides reach
        let reach = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |reach, (&size, &stride)| reach.checked_add((size - 1).checked_mul(stride)?));
        let place = reach.and_then(|last| {
            let end = range.start.checked_add(last.checked_add(1)?.checked_mul(size)?)?;
            let start = range.start.checked_add(offset.checked_mul(size)?)?;
            (end <= range.end).then_some(start..end)
        });
        let place = place.ok_or_else(|| {
            let elements = range.len() / size;
            fail(format!(
                "shape {shape:?} with strides {strides:?} from element {offset} leaves its storage of {elements} elements"
            ))
        })?;
        let strides = (!is_contiguous(&shape, &strides)).then_some(strides);
        Ok(stored(Data::Plain { range: place, strides }, checksum.clone()))
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}

struct StorageName<'a> {
    key: &'a str,
    /// `None` where the storage is untyped: bytes.
    element_type: Option<ElementType>,
    /// In elements: old files describe a part of a storage so.
    offset: usize,
}

struct Description<'a> {
    storage: StorageName<'a>,
    element_type: ElementType,
    /// In elements of the storage.
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// The description of a tensor; `None` if the value is no tensor.
fn describe<'p>(pickle: &'p Pickle<'_>, value: Id) -> Result<Option<Description<'p>>, &'static str> {
    let Value::Call { callable, arguments } = pickle.value(value) else { return Ok(None) };
    let (mut callable, mut arguments) = (*callable, *arguments);
    // A parameter, and a tensor of a subclass, wrap the call that describes the tensor.
    for _ in 0..4 {
        let Value::Global { module, name } = pickle.value(callable) else { return Ok(None) };
        let Value::Tuple(fields) = pickle.value(arguments) else {
            return Err("described without a tuple of arguments");
        };
        match (*module, *name) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                let inner = fields.first().map(|&first| pickle.value(first));
                let Some(Value::Call { callable: inner, arguments: inner_arguments }) = inner else {
                    return Err("a parameter without a tensor");
                };
                (callable, arguments) = (*inner, *inner_arguments);
            }
            ("torch._tensor", "_rebuild_from_type_v2") => match fields[..] {
                [inner, _, inner_arguments, ..] => (callable, arguments) = (inner, inner_arguments),
                _ => return Err("a tensor of a subclass without a tensor"),
            },
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                let [at, offset, shape, strides, rest @ ..] = &fields[..] else {
                    return Err("described with too few arguments");
                };
                let Value::Persistent(id) = pickle.value(*at) else {
                    return Err("described without a storage");
                };
                let storage = storage(pickle, *id)?;
                let element_type = match (*name, storage.element_type) {
                    ("_rebuild_tensor_v3", _) => match rest.get(2).map(|&dtype| pickle.value(dtype)) {
                        Some(Value::Global { module: "torch", name }) => type_of_dtype(name),
                        _ => return Err("described without a type"),
                    },
                    (_, Some(element_type)) => element_type,
                    (_, None) => return Err("described without a type"),
                };
                let shape = sizes(pickle, *shape)?;
                let strides = sizes(pickle, *strides)?;
                if shape.len() != strides.len() {
                    return Err("described with as many strides as it has axes, not");
                }
                let offset = size(pickle, *offset)?.checked_add(storage.offset);
                let offset = offset.ok_or("described with an offset that overflows")?;
                return Ok(Some(Description { storage, element_type, offset, shape, strides }));
            }
            _ => return Ok(None),
        }
    }
    Err("wrapped too deep")
}

/// Reads `("storage", class, key, location, elements[, (view key, offset, size)])`.
fn storage<'p>(pickle: &'p Pickle<'_>, id: Id) -> Result<StorageName<'p>, &'static str> {
    let Value::Tuple(fields) = pickle.value(id) else { return Err("in a storage without a description") };
    let [kind, class, key, _location, _count, view @ ..] = &fields[..] else {
        return Err("in a storage described with too few fields");
    };
    let (Some("storage"), Value::Global { name, .. }, Some(key)) =
        (text(pickle, *kind), pickle.value(*class), text(pickle, *key))
    else {
        return Err("in something that is no storage");
    };
    let offset = match view.first().map(|&view| pickle.value(view)) {
        None | Some(Value::None) => 0,
        Some(Value::Tuple(view)) if view.len() == 3 => size(pickle, view[1])?,
        Some(_) => return Err("in a part of a storage that is not described"),
    };
    Ok(StorageName { key, element_type: type_of_storage(name), offset })
}

fn size(pickle: &Pickle<'_>, id: Id) -> Result<usize, &'static str> {
    match pickle.value(id) {
        Value::Integer(value) => usize::try_from(*value).map_err(|_| "described with a negative number"),
        _ => Err("described with something that is no whole number"),
    }
}

fn sizes(pickle: &Pickle<'_>, id: Id) -> Result<Vec<usize>, &'static str> {
    let mut value = pickle.value(id);
    // `torch.Size((2, 3))`
    if let Value::Call { callable, arguments } = value
        && pickle.callable_name(*callable) == "torch.Size"
        && let Value::Tuple(arguments) = pickle.value(*arguments)
        && let [inner] = arguments[..]
    {
        value = pickle.value(inner);
    }
    match value {
        // PyTorch allows 64 axes
        Value::Tuple(sizes) | Value::List(sizes) if sizes.len() <= 64 => {
            sizes.iter().map(|&id| size(pickle, id)).collect()
        }
        _ => Err("described without a shape"),
    }
}

fn type_of_storage(class: &str) -> Option<ElementType> {
    let name = class.strip_suffix("Storage").unwrap_or_default();
    (name != "Untyped").then(|| type_of_dtype(&name.to_lowercase()))
}

fn type_of_dtype(name: &str) -> ElementType {
    match name {
        "float64" | "double" => ElementType::F64,
        "float32" | "float" => ElementType::F32,
        "float16" | "half" => ElementType::F16,
        "bfloat16" => ElementType::BF16,
        "int64" | "long" => ElementType::I64,
        "int32" | "int" => ElementType::I32,
        "int16" | "short" => ElementType::I16,
        "int8" | "char" => ElementType::I8,
        "uint64" => ElementType::U64,
        "uint32" => ElementType::U32,
        "uint16" => ElementType::U16,
        "uint8" | "byte" => ElementType::U8,
        "bool" => ElementType::Bool,
        _ => ElementType::Other,
    }
}
