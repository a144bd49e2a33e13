//! Parses the first bits of compressed frames, for the codecs of most web video: whether decoding can start
//! at a packet, whether other packets refer to it, and whether it is shown.

use gstreamer as gst;

/// The role of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// A decoder can start here.
    pub(super) restart: bool,
    /// No other packet refers to it.
    pub(super) disposable: bool,
    /// It is displayed as a frame.
    pub(super) shown: bool,
}

/// Parses a packet; `None` for an unknown codec, or bytes that break the codec's rules.
pub(super) fn look(caps: &gst::CapsRef, data: &[u8]) -> Option<Known> {
    let structure = caps.structure(0)?;
    match structure.name().as_str() {
        "video/x-h264" => {
            if structure.get::<&str>("stream-format") != Ok("avc") {
                return None;
            }
            let header = structure.get::<gst::Buffer>("codec_data").ok()?;
            let header = header.map_readable().ok()?;
            h264(data, usize::from(header.get(4)? & 3) + 1)
        }
        "video/x-vp8" => vp8(data),
        "video/x-vp9" => vp9(data),
        _ => None,
    }
}

/// H.264 with length-prefixed units: decoding can start at IDR pictures, a picture whose slices all have
/// `nal_ref_idc` 0 is disposable, and every access unit is shown.
fn h264(data: &[u8], prefix: usize) -> Option<Known> {
    let mut rest = data;
    let (mut slices, mut referred, mut idr) = (0, false, false);
    // Profiles of 8 bits and 4:2:0; parameters in a packet may be others than those in the file's header.
    const COMMON_PROFILES: [u8; 4] = [66, 77, 88, 100];
    while !rest.is_empty() {
        let (length, unit) = rest.split_at_checked(prefix)?;
        let length = length.iter().fold(0usize, |length, &byte| length << 8 | usize::from(byte));
        let (unit, after) = unit.split_at_checked(length)?;
        if let Some(&header) = unit.first()
            && matches!(header & 31, 1..=5)
        {
            slices += 1;
            referred |= header >> 5 & 3 != 0;
            idr |= header & 31 == 5;
        }
        if let [header, profile, ..] = unit
            && header & 31 == 7
            && !COMMON_PROFILES.contains(profile)
        {
            return None;
        }
        rest = after;
    }
    (slices > 0).then_some(Known { restart: idr, disposable: !referred, shown: true })
}

/// VP8's frame tag: bit 0 is clear in a key frame, bit 4 is set in a frame that is shown. Only some decoders
/// repeat the previous frame for an empty packet.
fn vp8(data: &[u8]) -> Option<Known> {
    let &tag = data.first()?;
    Some(Known { restart: tag & 1 == 0, disposable: false, shown: tag & 0x10 != 0 })
}

/// VP9: a packet may contain several frames, of which at most one is shown; an index at the end holds the
/// sizes.
fn vp9(data: &[u8]) -> Option<Known> {
    let mut shown = 0;
    let mut restart = false;
    for (place, frame) in vp9_frames(data)?.into_iter().enumerate() {
        let (key, show) = vp9_header(frame)?;
        restart |= place == 0 && key;
        shown += usize::from(show);
    }
    (shown <= 1).then_some(Known { restart, disposable: false, shown: shown == 1 })
}

fn vp9_frames(data: &[u8]) -> Option<Vec<&[u8]>> {
    let &marker = data.last()?;
    if marker & 0xE0 != 0xC0 {
        return Some(vec![data]);
    }
    let (count, bytes) = (usize::from(marker & 7) + 1, usize::from(marker >> 3 & 3) + 1);
    let index = 2 + count * bytes;
    let start = data.len().checked_sub(index)?;
    if data[start] != marker {
        return Some(vec![data]);
    }
    let mut rest = &data[..start];
    let mut frames = Vec::with_capacity(count);
    for size in data[start + 1..data.len() - 1].chunks_exact(bytes) {
        let size = size.iter().rev().fold(0usize, |size, &byte| size << 8 | usize::from(byte));
        let (frame, after) = rest.split_at_checked(size)?;
        if !frame.is_empty() {
            frames.push(frame);
        }
        rest = after;
    }
    Some(frames)
}

/// Whether a frame is a key frame, and whether it is shown.
fn vp9_header(frame: &[u8]) -> Option<(bool, bool)> {
    let &first = frame.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let profile = (first >> 5 & 1) | (first >> 3 & 2);
    // Profile 3 has a reserved bit, which shifts the following bits by one.
    let shift = if profile == 3 { 2 } else { 3 };
    let bit = |place: u8| first >> place & 1 == 1;
    let repeats = bit(shift);
    if repeats {
        return Some((false, true));
    }
    let key = !bit(shift - 1);
    Some((key, bit(shift - 2)))
}

/// Whether the sequence header in an AV1 packet (units with sizes) says that all values are used; `None`
/// where the packet has no such header.
pub(super) fn av1_full_range(packet: &[u8]) -> Option<bool> {
    const SEQUENCE_HEADER: u8 = 1;
    let mut rest = packet;
    while let Some((&head, after)) = rest.split_first() {
        let after = if head & 4 != 0 { after.get(1..)? } else { after };
        if head & 2 == 0 {
            return None;
        }
        let (size, length) = leb128(after)?;
        let unit = after.get(length..)?.get(..size)?;
        if head >> 3 & 15 == SEQUENCE_HEADER {
            return av1_colour_range(unit);
        }
        rest = &after[length + size..];
    }
    None
}

/// A number of AV1 in groups of seven bits, and its length in bytes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (place, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

/// Reads bits, the highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.place / 8)?;
        let bit = byte >> (7 - self.place % 8) & 1;
        self.place += 1;
        Some(bit == 1)
    }

    fn number(&mut self, bits: usize) -> Option<u32> {
        (0..bits).try_fold(0, |number, _| Some(number << 1 | u32::from(self.bit()?)))
    }

    /// AV1's number of variable length.
    fn variable(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
        }
        if zeros < 32 {
            self.number(zeros)?;
        }
        Some(())
    }
}

/// `color_range` of an AV1 sequence header (AV1 specification, 5.5).
fn av1_colour_range(unit: &[u8]) -> Option<bool> {
    let mut bits = Bits { bytes: unit, place: 0 };
    let profile = bits.number(3)?;
    bits.bit()?; // still_picture
    let reduced = bits.bit()?;
    if reduced {
        bits.number(5)?;
    } else {
        av1_operating_points(&mut bits)?;
    }
    let (width, height) = (bits.number(4)? as usize + 1, bits.number(4)? as usize + 1);
    bits.number(width)?;
    bits.number(height)?;
    if !reduced && bits.bit()? {
        bits.number(4 + 3)?; // lengths of frame ids
    }
    bits.number(3)?; // superblocks, two filters
    if !reduced {
        bits.number(4)?; // four kinds of prediction
        let order_hint = bits.bit()?;
        if order_hint {
            bits.number(2)?;
        }
        let chosen = bits.bit()?;
        let screen_content = if chosen { true } else { bits.bit()? };
        if screen_content {
            let chosen = bits.bit()?;
            if !chosen {
                bits.bit()?;
            }
        }
        if order_hint {
            bits.number(3)?;
        }
    }
    bits.number(3)?; // super resolution and two filters
    let high_depth = bits.bit()?;
    if profile == 2 && high_depth {
        bits.bit()?;
    }
    if profile != 1 {
        bits.bit()?; // monochrome
    }
    if bits.bit()? {
        let description = bits.number(24)?;
        const SRGB: u32 = 1 << 16 | 13 << 8; // primaries of BT.709, sRGB's curve, no matrix
        if description == SRGB {
            return Some(true);
        }
    }
    bits.bit()
}

/// Reads over timing and operating points.
fn av1_operating_points(bits: &mut Bits) -> Option<()> {
    let mut delay_length = None;
    if bits.bit()? {
        bits.number(32)?;
        bits.number(32)?;
        if bits.bit()? {
            bits.variable()?;
        }
        if bits.bit()? {
            delay_length = Some(bits.number(5)? as usize + 1);
            bits.number(32)?;
            bits.number(10)?;
        }
    }
    let has_delay = bits.bit()?;
    for _ in 0..bits.number(5)? + 1 {
        bits.number(12)?;
        if bits.number(5)? > 7 {
            bits.bit()?;
        }
        if let Some(length) = delay_length
            && bits.bit()?
        {
            bits.number(length)?;
            bits.number(length)?;
            bits.bit()?;
        }
        if has_delay && bits.bit()? {
            bits.number(4)?;
        }
    }
    Some(())
}

/// Parses bytes as a packet of every codec.
#[cfg(any(test, fuzzing))]
pub(super) fn look_at_all(data: &[u8]) {
    for prefix in 1..5 {
        let _ = h264(data, prefix);
    }
    let _ = (vp8(data), vp9(data), av1_full_range(data), av1_colour_range(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn h264_pictures() {
        let unit = |header: u8| [0, 0, 0, 2, header, 66];
        let look = |units: &[u8]| h264(&units.iter().flat_map(|&u| unit(u)).collect::<Vec<u8>>(), 4);
        let known = |restart, disposable| Some(Known { restart, disposable, shown: true });
        assert_eq!(look(&[0x67, 0x68, 0x65]), known(true, false)); // parameter sets, then an IDR slice
        assert_eq!(look(&[0x41]), known(false, false));
        assert_eq!(look(&[0x01, 0x01]), known(false, true));
        assert_eq!(look(&[0x01, 0x41]), known(false, false));
        assert_eq!(look(&[0x06]), None);
        assert_eq!(h264(&[0, 0, 0, 2, 0x67, 110, 0, 0, 0, 2, 0x65, 0], 4), None); // 10 bits in the packet
        assert_eq!(h264(&[0, 0, 0, 9, 1], 4), None);
    }

    #[test]
    fn vp8_and_vp9_frames() {
        assert_eq!(vp8(&[0x10, 0, 0]), Some(Known { restart: true, disposable: false, shown: true }));
        assert_eq!(vp8(&[0x01]), Some(Known { restart: false, disposable: false, shown: false }));
        assert_eq!(vp8(&[]), None);
        // marker 10, profile 00, show_existing 0, frame type 0 (key), show 1
        assert_eq!(vp9(&[0b1000_0010]), Some(Known { restart: true, disposable: false, shown: true }));
        assert_eq!(vp9(&[0b1000_0110]), Some(Known { restart: false, disposable: false, shown: true }));
        assert_eq!(vp9(&[0b1000_0100]), Some(Known { restart: false, disposable: false, shown: false }));
        assert_eq!(vp9(&[0b1000_1000]), Some(Known { restart: false, disposable: false, shown: true }));
        assert_eq!(vp9(&[0x00]), None);
        // A hidden frame of 1 byte and a shown one of 2, with their index.
        let packet = [0b1000_0100, 0b1000_0110, 0, 0xC1, 1, 2, 0xC1];
        assert_eq!(vp9(&packet), Some(Known { restart: false, disposable: false, shown: true }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), prefix in 1usize..5) {
            let _ = (h264(&bytes, prefix), vp8(&bytes), vp9(&bytes), av1_full_range(&bytes), av1_colour_range(&bytes));
        }
    }
}
