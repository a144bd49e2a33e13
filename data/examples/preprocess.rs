//! `preprocess SIZE FILE...` writes the model input of each image file, f32 `[3, SIZE, SIZE]` little-endian,
//! to its output. `scripts/reference/resize.py` compares it with BLIP's image processor.

use data::preprocess::Preprocess;
use data::video::{FrameRequest, decode};
use std::io::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let preprocess = Preprocess::new(arguments.next().ok_or("usage: preprocess SIZE FILE...")?.parse()?);
    let request = FrameRequest { size: None, ..FrameRequest::uniform(1, preprocess.size) };
    let mut out = std::io::stdout().lock();
    for file in arguments {
        let pixels = preprocess.resize(&decode(Path::new(&file), &request)?)?;
        for value in preprocess.normalize(&pixels.data) {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    Ok(())
}
