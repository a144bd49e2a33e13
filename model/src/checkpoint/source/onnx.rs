//! ONNX models: their tensors, and the graph, which shows the use of anonymous tensors.
//!
//! Field numbers are those of `onnx.proto`. Only the parts of the graph that show the use of a tensor are
//! kept; nested graphs (`If`, `Loop`) are skipped.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use super::file::MappedFile;
use super::protobuf::{Field, WireError, fields, packed_varints};
use super::stored::{Data, ElementType, Stored, element_count};
use super::{Opened, SourceError};

const FORMAT: &str = "ONNX";

/// Maximum number of nodes, inputs, outputs and tensors (LLaMA-13B: some 40,000). Each takes more memory than
/// its two bytes in a malicious file.
const MAX_PARTS: usize = 2 << 20;

/// One operation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name; with the TorchScript exporter it contains the module's path:
    /// `/encoder/layers.0/mlp/fc1/MatMul`.
    pub name: String,
    /// `MatMul`, `Add`, `Gather`, ...
    pub operator: String,
    /// Names of tensors, or of outputs of other operations.
    pub inputs: Vec<String>,
    /// The full names of its modules, outermost first (`encoder.layers.0.mlp.fc1`); only from the newer
    /// exporter.
    pub scopes: Vec<String>,
}

/// Whether a file is a model: a message with a graph.
pub(super) fn is_model(bytes: &[u8]) -> bool {
    let mut has_graph = false;
    for field in fields(bytes) {
        match field {
            Ok((7, Field::Bytes(_))) => has_graph = true,
            Ok((1..=25, _)) => {}
            _ => return false,
        }
    }
    has_graph
}

pub(super) fn open(file: &Arc<MappedFile>) -> Result<Opened, SourceError> {
    let mut reader =
        Reader { file, parts: 0, external: HashMap::new(), tensors: BTreeMap::new(), nodes: Vec::new() };
    let mut has_graph = false;
    for field in fields(file.bytes()) {
        if let (7, Field::Bytes(graph)) = field.map_err(|error| reader.wire(&error))? {
            has_graph = true;
            reader.graph(graph)?;
        }
    }
    if !has_graph {
        return Err(file.damaged(FORMAT, "no graph in it"));
    }
    Ok(Opened { tensors: reader.tensors, left_out: Vec::new(), graph: Some(reader.nodes) })
}

struct Reader<'a> {
    file: &'a Arc<MappedFile>,
    parts: usize,
    external: HashMap<String, Arc<MappedFile>>,
    tensors: BTreeMap<String, Stored>,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn wire(&self, error: &WireError) -> SourceError {
        self.file.damaged(FORMAT, error.to_string())
    }

    fn text(&self, bytes: &[u8]) -> Result<String, SourceError> {
        let text = std::str::from_utf8(bytes);
        Ok(text.map_err(|_| self.file.damaged(FORMAT, "a name that is not UTF-8"))?.to_owned())
    }

    fn count(&mut self) -> Result<(), SourceError> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(self
                .file
                .damaged(FORMAT, format!("more than {MAX_PARTS} nodes, inputs and tensors")));
        }
        Ok(())
    }

    fn graph(&mut self, graph: &[u8]) -> Result<(), SourceError> {
        for field in fields(graph) {
            match field.map_err(|error| self.wire(&error))? {
                (1, Field::Bytes(node)) => self.node(node)?,
                (5, Field::Bytes(tensor)) => self.tensor(tensor, None)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, message: &[u8]) -> Result<(), SourceError> {
        self.count()?;
        let mut node = Node::default();
        let (mut outputs, mut constant) = (Vec::new(), None);
        for field in fields(message) {
            match field.map_err(|error| self.wire(&error))? {
                (1, Field::Bytes(input)) => {
                    self.count()?;
                    node.inputs.push(self.text(input)?);
                }
                (2, Field::Bytes(output)) => {
                    self.count()?;
                    outputs.push(self.text(output)?);
                }
                (3, Field::Bytes(name)) => node.name = self.text(name)?,
                (4, Field::Bytes(operator)) => node.operator = self.text(operator)?,
                (5, Field::Bytes(attribute)) => constant = self.tensor_attribute(attribute)?.or(constant),
                (9, Field::Bytes(entry)) => {
                    let (key, value) = self.entry(entry)?;
                    if key == "pkg.torch.onnx.name_scopes" {
                        node.scopes = quoted(&value);
                        self.parts += node.scopes.len();
                    }
                }
                _ => {}
            }
        }
        // a constant is a tensor with the name of the node's output
        if node.operator == "Constant"
            && let (Some(tensor), [output]) = (constant, &outputs[..])
        {
            self.tensor(tensor, Some(output.clone()))?;
        }
        self.nodes.push(node);
        Ok(())
    }

    /// The tensor of an attribute named `value`.
    fn tensor_attribute<'m>(&self, attribute: &'m [u8]) -> Result<Option<&'m [u8]>, SourceError> {
        let (mut is_value, mut tensor) = (false, None);
        for field in fields(attribute) {
            match field.map_err(|error| self.wire(&error))? {
                (1, Field::Bytes(name)) => is_value = name == b"value",
                (5, Field::Bytes(message)) => tensor = Some(message),
                _ => {}
            }
        }
        Ok(tensor.filter(|_| is_value))
    }

    fn entry(&self, message: &[u8]) -> Result<(String, String), SourceError> {
        let (mut key, mut value) = (String::new(), String::new());
        for field in fields(message) {
            match field.map_err(|error| self.wire(&error))? {
                (1, Field::Bytes(bytes)) => key = self.text(bytes)?,
                (2, Field::Bytes(bytes)) => value = self.text(bytes)?,
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn tensor(&mut self, message: &[u8], constant: Option<String>) -> Result<(), SourceError> {
        self.count()?;
        let mut tensor = TensorMessage::default();
        for field in fields(message) {
            match field.map_err(|error| self.wire(&error))? {
                (1, Field::Varint(size)) => tensor.dims.push(size),
                (1, Field::Bytes(packed)) => {
                    for size in packed_varints(packed) {
                        tensor.dims.push(size.map_err(|error| self.wire(&error))?);
                        if tensor.dims.len() > MAX_AXES {
                            break;
                        }
                    }
                }
                (2, Field::Varint(data_type)) => tensor.data_type = data_type,
                (4 | 10, Field::Bytes(plain)) => tensor.plain.push(plain),
                (5 | 7 | 11, Field::Bytes(packed)) => tensor.varints.push(packed),
                (4 | 5 | 7 | 10 | 11, _) => tensor.is_unpacked = true,
                (8, Field::Bytes(name)) => tensor.name = self.text(name)?,
                (9, Field::Bytes(raw)) => tensor.plain.push(raw),
                (13, Field::Bytes(entry)) => tensor.external.push(self.entry(entry)?),
                (14, Field::Varint(location)) => tensor.is_external = location == 1,
                _ => {}
            }
            let pieces = tensor.plain.len() + tensor.varints.len() + tensor.external.len();
            if tensor.dims.len() > MAX_AXES || pieces > MAX_PIECES {
                return Err(self
                    .file
                    .damaged(FORMAT, format!("tensor {} of too many axes or pieces", tensor.name)));
            }
        }
        let name = constant.unwrap_or_else(|| std::mem::take(&mut tensor.name));
        let stored = self.stored(&name, &tensor)?;
        if self.tensors.insert(name.clone(), stored).is_some() {
            return Err(self.file.damaged(FORMAT, format!("two tensors named {name}")));
        }
        Ok(())
    }

    fn stored(&mut self, name: &str, tensor: &TensorMessage<'_>) -> Result<Stored, SourceError> {
        let fail = |reason: String| self.file.tensor(name, reason);
        let element_type = element_type(tensor.data_type);
        let shape = tensor.dims.iter().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| fail("a negative size".to_owned()))?;
        let count = element_count(&shape).ok_or_else(|| fail(format!("shape {shape:?} overflows")))?;
        let stored = |file: &Arc<MappedFile>, data| Stored {
            file: Arc::clone(file),
            element_type,
            shape: shape.clone(),
            data,
            checksum: None,
        };
        let Some(size) = element_type.size() else {
            return Ok(stored(self.file, Data::Plain { range: 0..0, strides: None }));
        };
        let length = count.checked_mul(size).ok_or_else(|| fail(format!("shape {shape:?} overflows")))?;
        if tensor.is_unpacked {
            return Err(fail("numbers written one by one instead of packed".to_owned()));
        }
        if tensor.is_external {
            let (file, range) = self.external(name, &tensor.external, length)?;
            return Ok(stored(&file, Data::Plain { range, strides: None }));
        }
        match (&tensor.plain[..], &tensor.varints[..]) {
            ([], []) if length == 0 => Ok(stored(self.file, Data::Plain { range: 0..0, strides: None })),
            ([bytes], []) if bytes.len() == length => {
                Ok(stored(self.file, Data::Plain { range: self.range_of(bytes), strides: None }))
            }
            ([], [packed]) if packed.len() >= length / size => {
                Ok(stored(self.file, Data::Varints { range: self.range_of(packed) }))
            }
            (plain, varints) => {
                let found: usize = plain.iter().chain(varints).map(|bytes| bytes.len()).sum();
                let pieces = plain.len() + varints.len();
                Err(fail(format!(
                    "expected {length} bytes for shape {shape:?}, got {found} in {pieces} pieces"
                )))
            }
        }
    }

    /// The range of a slice of the map.
    fn range_of(&self, slice: &[u8]) -> Range<usize> {
        let start = slice.as_ptr() as usize - self.file.bytes().as_ptr() as usize;
        start..start + slice.len()
    }

    /// A tensor in another file of the model's folder.
    fn external(
        &mut self,
        name: &str,
        entries: &[(String, String)],
        length: usize,
    ) -> Result<(Arc<MappedFile>, Range<usize>), SourceError> {
        let fail = |reason: String| self.file.tensor(name, reason);
        let value = |key| entries.iter().find(|entry| entry.0 == key).map(|entry| entry.1.as_str());
        let location =
            value("location").ok_or_else(|| fail("its data is external, without a location".to_owned()))?;
        let is_beside = Path::new(location)
            .components()
            .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
        if !is_beside || location.is_empty() {
            return Err(fail(format!(
                "its data is outside of the model's folder, in {location:?}: not opened"
            )));
        }
        let number = |key| match value(key) {
            None => Ok(None),
            Some(text) => text.parse::<usize>().map(Some).map_err(|_| fail(format!("its {key} is {text:?}"))),
        };
        let (start, claimed) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(length));
        let file = match self.external.get(location) {
            Some(file) => Arc::clone(file),
            None => {
                let folder = self.file.path().parent().unwrap_or(Path::new("."));
                let file = Arc::new(MappedFile::open(&folder.join(location))?);
                self.external.insert(location.to_owned(), Arc::clone(&file));
                file
            }
        };
        let end = start.checked_add(length).filter(|&end| claimed == length && end <= file.bytes().len());
        let end = end.ok_or_else(|| {
            let reason = format!(
                "expected {length} bytes, got {claimed} from byte {start} of {location}, which has {}",
                file.bytes().len()
            );
            fail(reason)
        })?;
        Ok((file, start..end))
    }
}

const MAX_AXES: usize = 64;
const MAX_PIECES: usize = 16;

#[derive(Default)]
struct TensorMessage<'a> {
    name: String,
    dims: Vec<u64>,
    data_type: u64,
    /// `raw_data`, or packed `float_data` or `double_data`: all of them little-endian.
    plain: Vec<&'a [u8]>,
    /// Packed `int32_data`, `int64_data` or `uint64_data`.
    varints: Vec<&'a [u8]>,
    is_unpacked: bool,
    is_external: bool,
    external: Vec<(String, String)>,
}

fn element_type(data_type: u64) -> ElementType {
    match data_type {
        1 => ElementType::F32,
        2 => ElementType::U8,
        3 => ElementType::I8,
        4 => ElementType::U16,
        5 => ElementType::I16,
        6 => ElementType::I32,
        7 => ElementType::I64,
        9 => ElementType::Bool,
        10 => ElementType::F16,
        11 => ElementType::F64,
        12 => ElementType::U32,
        13 => ElementType::U64,
        16 => ElementType::BF16,
        _ => ElementType::Other,
    }
}

/// The items of a list in Python's notation: `['', 'encoder', 'encoder.layers.0']`.
fn quoted(list: &str) -> Vec<String> {
    list.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}
