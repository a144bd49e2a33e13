//! Pads from which a demuxer reads a file. GStreamer's file source would read each packet by itself,
//! including those of the sound, and cannot change bytes.

use super::edits::Edit;
use crate::error::{Error, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A pad that reads `file` as its demuxer asks, with the edit's end opened.
pub(super) fn of_file(path: &Path, file: File, edit: Edit) -> Result<gst::Pad> {
    let length = file.metadata().map_err(Error::io("read the video", path))?.len();
    pad(path, length, move |offset, count| {
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, offset).map_err(|_| gst::FlowError::Error)?;
        edit.open_end(offset, &mut bytes);
        Ok(gst::Buffer::from_mut_slice(bytes))
    })
}

/// A pad that reads bytes in memory.
pub(super) fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<gst::Pad> {
    let length = bytes.len() as u64;
    let whole = gst::Buffer::from_slice(bytes);
    pad(path, length, move |offset, count| {
        let from = usize::try_from(offset).map_err(|_| gst::FlowError::Error)?;
        whole.copy_region(gst::BufferCopyFlags::MEMORY, from..from + count).map_err(|_| gst::FlowError::Error)
    })
}

/// A pad over `length` bytes; `read` gets an offset and a number of bytes that lie inside.
fn pad(
    path: &Path,
    length: u64,
    read: impl Fn(u64, usize) -> std::result::Result<gst::Buffer, gst::FlowError> + Send + Sync + 'static,
) -> Result<gst::Pad> {
    let source = gst::Pad::builder(gst::PadDirection::Src)
        .getrange_function(move |_, _, offset, given, count| {
            // As everywhere in GStreamer: fewer bytes than requested at the end, end of stream after it.
            if offset >= length {
                return Err(gst::FlowError::Eos);
            }
            let count = (length - offset).min(u64::from(count)) as usize;
            let part = read(offset, count)?;
            match given {
                None => Ok(gst::PadGetRangeSuccess::NewBuffer(part)),
                Some(buffer) => {
                    let part = part.map_readable().map_err(|_| gst::FlowError::Error)?;
                    buffer.copy_from_slice(0, &part).map_err(|_| gst::FlowError::Error)?;
                    buffer.set_size(part.len());
                    Ok(gst::PadGetRangeSuccess::FilledBuffer)
                }
            }
        })
        .query_function(move |pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Scheduling(scheduling) => {
                scheduling.set(gst::SchedulingFlags::SEEKABLE, 1, -1, 0);
                scheduling.add_scheduling_modes([gst::PadMode::Pull]);
                true
            }
            gst::QueryViewMut::Duration(duration) if duration.format() == gst::Format::Bytes => {
                duration.set(gst::format::Bytes::from_u64(length));
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build();
    source.set_active(true).map_err(|error| Error::video(path, error.to_string()))?;
    Ok(source)
}
