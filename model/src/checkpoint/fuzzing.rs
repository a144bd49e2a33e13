//! Entry points of the fuzz targets in `fuzz/`: each reads one input and panics where a promise is broken.

use std::io::{Cursor, Write};
use std::path::Path;

use burn::tensor::Device;

use super::config::save_config;
use super::layout::Mapped;
use super::source::{Source, SourceError};
use super::{Blip2Config, end_tokens, load_adapter_config, load_config_file, load_language_model_config};

/// The pickle of a file of torch.save, beside two storages of 64 and 16 bytes.
pub fn pickle(folder: &Path, input: &[u8]) {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", input), ("a/data/0", &[1; 64]), ("a/data/1", &[2; 16])] {
        archive.start_file(name, stored).expect("a member");
        archive.write_all(content).expect("a member");
    }
    let bytes = archive.finish().expect("an archive").into_inner();
    read(folder, "weights.pth", &bytes);
}

/// A whole file of torch.save, zipped or legacy.
pub fn torch(folder: &Path, input: &[u8]) {
    read(folder, "weights.pth", input);
}

/// A safetensors file.
pub fn safetensors(folder: &Path, input: &[u8]) {
    read(folder, "weights.safetensors", input);
}

/// An ONNX model.
pub fn onnx(folder: &Path, input: &[u8]) {
    std::fs::write(folder.join("beside.bin"), [1; 64]).expect("a file");
    read(folder, "model.onnx", input);
}

/// Reads every tensor of a file: the elements are as many as the shape says, or an error names the file.
fn read(folder: &Path, name: &str, input: &[u8]) {
    let path = folder.join(name);
    std::fs::write(&path, input).expect("a file");
    // Of the model, or of a file beside it that holds a tensor.
    let file = folder.display().to_string();
    let named = |error: &SourceError| assert!(error.to_string().contains(&file), "no file in {error}");
    let Ok(source) = Source::open(&path).inspect_err(named) else { return };
    for tensor in source.names() {
        let Some(info) = source.get(tensor) else { panic!("{tensor} is listed and absent") };
        if let Ok(bytes) = source.read_bytes(tensor).inspect_err(named) {
            let length = info.element_type.size().map(|size| info.shape.iter().product::<usize>() * size);
            assert_eq!(Some(bytes.len()), length, "{tensor} of {:?}", info.shape);
        }
        if let Ok(values) = source.read_f32(tensor).inspect_err(named) {
            assert_eq!(values.len(), info.shape.iter().product::<usize>(), "{tensor} of {:?}", info.shape);
        }
    }
    let Ok(mapped) = Mapped::new(source).inspect_err(named) else { return };
    for tensor in mapped.names() {
        let Some((shape, _)) = mapped.get(tensor) else { panic!("{tensor} is listed and absent") };
        if let Ok(values) = mapped.read_f32(tensor).inspect_err(named) {
            assert_eq!(values.len(), shape.iter().product::<usize>(), "{tensor} of {shape:?}");
        }
    }
}

/// The JSON files of a checkpoint's folder: what is read can be saved and read again, and each error names a
/// file of the folder.
pub fn configs(folder: &Path, input: &[u8]) {
    let files = ["config.json", "adapter_config.json", "generation_config.json", "a.safetensors.index.json"];
    for file in files {
        std::fs::write(folder.join(file), input).expect("a file");
    }
    let named = |message: &dyn std::fmt::Display| {
        let message = message.to_string();
        assert!(files.iter().any(|file| message.contains(file)), "no file in {message}");
    };
    let known = folder.join("known");
    std::fs::create_dir_all(&known).expect("a folder");
    if let Ok(config) = load_config_file(&folder.join("config.json")).inspect_err(|error| named(error)) {
        let _ = end_tokens(folder, &config).inspect_err(|error| named(error));
        // A default may be saved as a value, so that only what was saved stays the same.
        let save_and_load = |config: &Blip2Config| {
            let path = known.join("config.json");
            save_config(config, &path).expect("a folder");
            load_config_file(&path).expect("a configuration that was just saved")
        };
        let saved = save_and_load(&config);
        assert_eq!(saved, save_and_load(&saved), "saved again");
        // No weight exists before its file is read, so that sizes of any kind cost nothing.
        drop(config.init(&Device::flex()));
    }
    let _ = load_language_model_config(folder).inspect_err(|error| named(error));
    let _ = load_adapter_config(folder).inspect_err(|error| named(error));
    let _ = Source::open(&folder.join("a.safetensors.index.json")).inspect_err(|error| named(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target on its committed corpus, which holds what fuzzing once found.
    fn corpus(target: &str, run: impl Fn(&Path, &[u8])) {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&inputs).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            run(scratch.path(), &std::fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{}", inputs.display());
    }

    #[test]
    fn the_corpora_of_the_fuzz_targets_keep_every_promise() {
        corpus("configs", configs);
        corpus("onnx", onnx);
        corpus("pickle", pickle);
        corpus("safetensors", safetensors);
        corpus("torch", torch);
    }
}
