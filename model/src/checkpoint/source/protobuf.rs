//! The wire format of Protocol Buffers, as used by ONNX: an iterator over fields, without copies, allocation
//! or recursion.

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a number runs past the end of its message")]
    Truncated,
    #[error("a number of more than 64 bits")]
    Overlong,
    #[error("field {field} claims {length} bytes of the {left} that its message has left")]
    TooLong { field: u64, length: u64, left: usize },
    #[error("field {field} is of unknown wire type {wire_type}")]
    WireType { field: u64, wire_type: u64 },
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// A string, a nested message or packed numbers.
    Bytes(&'a [u8]),
}

/// The items of a message; an error ends the iteration.
fn items<'a, T>(
    message: &'a [u8],
    read: impl Fn(&mut &'a [u8]) -> Result<T, WireError>,
) -> impl Iterator<Item = Result<T, WireError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = read(&mut rest);
        if item.is_err() {
            rest = &[];
        }
        Some(item)
    })
}

/// The fields of a message.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Field<'_>), WireError>> {
    items(message, field)
}

/// The numbers of a packed field.
pub(super) fn packed_varints(bytes: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> {
    items(bytes, varint)
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Field<'a>), WireError> {
    let key = varint(rest)?;
    let (field, wire_type) = (key >> 3, key & 7);
    let value = match wire_type {
        0 => Field::Varint(varint(rest)?),
        1 => Field::Fixed64(array(rest)?),
        2 => {
            let length = varint(rest)?;
            let message = *rest;
            let split = usize::try_from(length).ok().and_then(|length| message.split_at_checked(length));
            let (bytes, after) = split.ok_or(WireError::TooLong { field, length, left: message.len() })?;
            *rest = after;
            Field::Bytes(bytes)
        }
        5 => Field::Fixed32(array(rest)?),
        _ => return Err(WireError::WireType { field, wire_type }),
    };
    Ok((field, value))
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (array, after) = rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
    *rest = after;
    Ok(*array)
}

fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0u64;
    for place in 0..10 {
        let (&byte, after) = rest.split_first().ok_or(WireError::Truncated)?;
        *rest = after;
        if place == 9 && byte > 1 {
            return Err(WireError::Overlong);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Overlong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_walked_in_place() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0];
        let found: Vec<_> = fields(&message).collect::<Result<_, _>>().unwrap();
        assert_eq!(
            found,
            [(1, Field::Varint(150)), (2, Field::Bytes(b"hi")), (3, Field::Fixed32([1, 0, 0, 0]))]
        );
    }

    #[test]
    fn absurd_lengths_unknown_types_and_overlong_numbers_are_errors() {
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0];
        let found: Vec<_> = fields(&huge).collect();
        assert_eq!(found, [Err(WireError::TooLong { field: 2, length: u64::MAX, left: 1 })]);
        assert_eq!(fields(&[0x0b]).next(), Some(Err(WireError::WireType { field: 1, wire_type: 3 })));
        assert_eq!(fields(&[0x08, 0x80]).next(), Some(Err(WireError::Truncated)));
        assert_eq!(fields(&[0xff; 11]).next(), Some(Err(WireError::Overlong)));
        assert_eq!(packed_varints(&[1, 0x80, 1]).collect::<Vec<_>>(), [Ok(1), Ok(128)]);
    }
}
