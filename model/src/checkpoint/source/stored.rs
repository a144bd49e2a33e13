//! One tensor of a file, and reading its elements in row-major order.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use half::{bf16, f16};

use super::file::MappedFile;
use super::protobuf;

/// The type of a tensor's elements in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// Complex, quantised, 8-bit floating-point and smaller types, which cannot be read.
    Other,
}

impl ElementType {
    /// Bytes of an element, if the type can be read.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => Some(2),
            Self::I8 | Self::U8 | Self::Bool => Some(1),
            Self::Other => None,
        }
    }

    /// Whether the type is a floating-point one that converts to `f32`.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// The position and encoding of the elements.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Little-endian elements. Contiguous in row-major order, or at these strides (in elements) from the
    /// range's start.
    Plain { range: Range<usize>, strides: Option<Vec<usize>> },
    /// Protobuf varints, one per element, contiguous in row-major order: a form of 16-bit floats in ONNX.
    Varints { range: Range<usize> },
}

/// The checksum of a whole storage in a zip archive, verified when one of its tensors is first read.
#[derive(Debug)]
pub(super) struct Checksum {
    pub(super) range: Range<usize>,
    pub(super) expected: u32,
    pub(super) is_sound: OnceLock<bool>,
}

/// One tensor of a mapped file. Its constructors check that the range is within the file and the elements
/// within the range; reading checks again.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) file: Arc<MappedFile>,
    pub(super) element_type: ElementType,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
    pub(super) checksum: Option<Arc<Checksum>>,
}

impl Stored {
    /// The elements as `f32`, in row-major order.
    pub(super) fn to_f32(&self) -> Result<Vec<f32>, String> {
        if !self.element_type.is_float() {
            return Err(format!("of type {:?}, expected F32, F16, BF16 or F64", self.element_type));
        }
        let bytes = self.to_bytes()?;
        let mut values = Vec::new();
        let size = self.element_type.size().unwrap_or(1);
        values.try_reserve_exact(bytes.len() / size).map_err(|error| error.to_string())?;
        match self.element_type {
            ElementType::F64 => values.extend(elements(&bytes).map(|b| f64::from_le_bytes(b) as f32)),
            ElementType::F32 => values.extend(elements(&bytes).map(f32::from_le_bytes)),
            ElementType::F16 => values.extend(elements(&bytes).map(|b| f16::from_le_bytes(b).to_f32())),
            _ => values.extend(elements(&bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
        }
        drop(bytes);
        let (Data::Plain { range, .. } | Data::Varints { range }) = &self.data;
        self.file.release(range);
        Ok(values)
    }

    /// The bytes of the elements, little-endian, in row-major order; borrowed from the map if it has this
    /// order.
    pub(super) fn to_bytes(&self) -> Result<Cow<'_, [u8]>, String> {
        let Some(size) = self.element_type.size() else {
            return Err(
                "of a type that cannot be read (complex, quantised or of less than 16 bits)".to_owned()
            );
        };
        let count = element_count(&self.shape).ok_or("more elements than memory can address")?;
        let length = count.checked_mul(size).ok_or("more bytes than memory can address")?;
        if let Some(checksum) = &self.checksum {
            self.verify(checksum)?;
        }
        let (Data::Plain { range, .. } | Data::Varints { range }) = &self.data;
        let bytes = self.file.slice(range).ok_or("leaves the file")?;
        match &self.data {
            Data::Plain { strides: None, .. } => {
                if bytes.len() != length {
                    return Err(format!("expected {length} bytes, got {}", bytes.len()));
                }
                Ok(Cow::Borrowed(bytes))
            }
            Data::Plain { strides: Some(strides), .. } => {
                // with strides of zero a short file could otherwise request any amount of memory
                if length > self.file.bytes().len() {
                    return Err(format!("{length} bytes made out of a file of {}", self.file.bytes().len()));
                }
                let mut contiguous = Vec::new();
                contiguous.try_reserve_exact(length).map_err(|error| error.to_string())?;
                gather(bytes, size, &self.shape, strides, &mut contiguous)
                    .ok_or("its strides leave its storage")?;
                Ok(Cow::Owned(contiguous))
            }
            Data::Varints { .. } => {
                if count > bytes.len() {
                    return Err(format!("expected {count} elements, got at most {}", bytes.len()));
                }
                let mut decoded = Vec::with_capacity(length);
                for value in protobuf::packed_varints(bytes) {
                    let value = value.map_err(|error| error.to_string())?;
                    decoded.extend_from_slice(&value.to_le_bytes()[..size]);
                }
                if decoded.len() != length {
                    return Err(format!("expected {count} elements, got {}", decoded.len() / size));
                }
                Ok(Cow::Owned(decoded))
            }
        }
    }

    fn verify(&self, checksum: &Checksum) -> Result<(), String> {
        let is_sound = checksum.is_sound.get_or_init(|| {
            let mut hasher = crc32fast::Hasher::new();
            // a storage may hold many tensors, so its memory is released
            for start in checksum.range.clone().step_by(HASHED_AT_ONCE) {
                let range = start..checksum.range.end.min(start + HASHED_AT_ONCE);
                hasher.update(self.file.slice(&range).unwrap_or_default());
                if checksum.range.len() > HASHED_AT_ONCE {
                    self.file.release(&range);
                }
            }
            hasher.finalize() == checksum.expected
        });
        if *is_sound { Ok(()) } else { Err("its checksum does not fit its bytes (damaged file)".to_owned()) }
    }
}

/// Bytes of a storage in memory during the verification of its checksum.
const HASHED_AT_ONCE: usize = 64 << 20;

/// The number of elements of a shape, or `None` if it overflows. With a size of zero the product of the other
/// sizes must not overflow either, so that sizes can be multiplied in any order.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    let mut others = shape.iter().filter(|&&size| size != 0);
    let count = others.try_fold(1usize, |count, &size| count.checked_mul(size))?;
    Some(if shape.contains(&0) { 0 } else { count })
}

fn elements<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Appends the elements at the given strides in row-major order; `None` if one is outside of `bytes`.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize], into: &mut Vec<u8>) -> Option<()> {
    if shape.contains(&0) {
        return Some(());
    }
    let mut index = vec![0usize; shape.len()];
    loop {
        let offset = index
            .iter()
            .zip(strides)
            .try_fold(0usize, |offset, (&at, &stride)| offset.checked_add(at.checked_mul(stride)?))?;
        let start = offset.checked_mul(size)?;
        into.extend_from_slice(bytes.get(start..start.checked_add(size)?)?);
        // count up, the last axis fastest
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return Some(());
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
