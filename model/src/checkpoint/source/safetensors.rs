//! Safetensors files.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;

use super::file::MappedFile;
use super::stored::{Data, ElementType, Stored, element_count};
use super::{Opened, SourceError};

const FORMAT: &str = "safetensors";

/// Maximum length of the header in the format.
const MAX_HEADER: usize = 100_000_000;

/// The header's entry of a tensor. The reader of the safetensors crate names no tensor in its errors, and
/// adds the last offset to the header's length without a check for overflow.
#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

pub(super) fn open(file: &Arc<MappedFile>) -> Result<Opened, SourceError> {
    let damaged = |reason: String| file.damaged(FORMAT, reason);
    let bytes = file.bytes();
    let length = bytes.first_chunk::<8>().ok_or_else(|| damaged(format!("only {} bytes", bytes.len())))?;
    let length = u64::from_le_bytes(*length);
    let data_start = usize::try_from(length)
        .ok()
        .filter(|&length| length <= MAX_HEADER)
        .and_then(|length| length.checked_add(8))
        .filter(|&end| end <= bytes.len())
        .ok_or_else(|| damaged(format!("its header claims {length} bytes of a file of {}", bytes.len())))?;
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(&bytes[8..data_start]).map_err(|error| damaged(error.to_string()))?;
    let data_length = bytes.len() - data_start;
    let mut tensors = BTreeMap::new();
    let mut places = Vec::new();
    for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let entry: Entry =
            serde_json::from_value(entry).map_err(|error| file.tensor(&name, error.to_string()))?;
        let (start, end) = entry.data_offsets;
        if start > end || end > data_length {
            return Err(file.tensor(&name, format!("claims bytes {start} to {end} of {data_length}")));
        }
        let expected = element_count(&entry.shape).and_then(|count| count.checked_mul(entry.dtype.bitsize()));
        if expected != (end - start).checked_mul(8) {
            let (shape, dtype, length) = (&entry.shape, entry.dtype, end - start);
            return Err(
                file.tensor(&name, format!("of shape {shape:?} and type {dtype:?}, but has {length} bytes"))
            );
        }
        places.push((start, end, name.clone()));
        tensors.insert(
            name,
            Stored {
                file: Arc::clone(file),
                element_type: element_type(entry.dtype),
                shape: entry.shape,
                data: Data::Plain { range: data_start + start..data_start + end, strides: None },
                checksum: None,
            },
        );
    }
    // the format requires contiguous tensors
    places.sort_unstable();
    let mut position = 0;
    for (start, end, name) in places {
        if start != position {
            return Err(file.tensor(&name, format!("begins at byte {start}, expected {position}")));
        }
        position = end;
    }
    if position != data_length {
        return Err(damaged(format!("its tensors end at byte {position} of {data_length}")));
    }
    Ok(Opened { tensors, left_out: Vec::new(), graph: None })
}

fn element_type(dtype: Dtype) -> ElementType {
    match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U64 => ElementType::U64,
        Dtype::U32 => ElementType::U32,
        Dtype::U16 => ElementType::U16,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => ElementType::Other,
    }
}
