//! Safetensors files.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;

use super::file::MappedFile;
use super::stored::{Data, ElementType, Stored, element_count};
use super::{Opened, SourceError};

const FORMAT: &str = "safetensors";

/// The longest header that the format allows.
const LONGEST_HEADER: usize = 100_000_000;

pub(super) fn open(file: &Arc<MappedFile>) -> Result<Opened, SourceError> {
    let damaged = |reason: String| file.damaged(FORMAT, reason);
    let bytes = file.bytes();
    let length = bytes.first_chunk::<8>().ok_or_else(|| damaged(format!("only {} bytes", bytes.len())))?;
    let length = u64::from_le_bytes(*length);
    let data_start = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_HEADER)
        .and_then(|length| length.checked_add(8))
        .filter(|&end| end <= bytes.len())
        .ok_or_else(|| damaged(format!("its header claims {length} bytes of a file of {}", bytes.len())))?;
    // The crate's own reader adds the last offset to the header's length without a check for overflow, so only its
    // parsing is used here, and offsets are checked below.
    let header: Metadata =
        serde_json::from_slice(&bytes[8..data_start]).map_err(|error| damaged(error.to_string()))?;
    let data_length = bytes.len() - data_start;
    let mut end_of_data = 0;
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        let (start, end) = info.data_offsets;
        if start > end || end > data_length {
            let claim = format!("tensor {name} claims bytes {start} to {end} of {data_length}");
            return Err(damaged(claim));
        }
        let expected = element_count(&info.shape).and_then(|count| count.checked_mul(info.dtype.bitsize()));
        if expected != (end - start).checked_mul(8) {
            let bytes = end - start;
            let reason = format!("tensor {name} of shape {:?} and type {:?} has {bytes} bytes", info.shape, info.dtype);
            return Err(damaged(reason));
        }
        end_of_data = end_of_data.max(end);
        let range = data_start + start..data_start + end;
        tensors.insert(
            name,
            Stored {
                file: Arc::clone(file),
                element_type: element_type(info.dtype),
                shape: info.shape.clone(),
                data: Data::Plain { range, strides: None },
                checksum: None,
            },
        );
    }
    if end_of_data != data_length {
        return Err(damaged(format!("its tensors end at byte {end_of_data} of {data_length}")));
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
