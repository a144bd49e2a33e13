//! Whole files, good and bad. The fixtures are made by `scripts/reference/checkpoint_fixtures.py`.

use std::path::{Path, PathBuf};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name)
}

fn error_of(path: &Path) -> String {
    let error = Source::open(path).expect_err("an unreadable file was read").to_string();
    assert!(error.contains(&*path.file_name().unwrap().to_string_lossy()), "the file is not named: {error}");
    error
}

/// Opens `bytes` as a file of that name, and reads every tensor: whatever happens, it must happen in good
/// order.
fn open_and_read(bytes: &[u8], name: &str) -> Result<usize, SourceError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let source = Source::open(&path)?;
    let names: Vec<_> = source.names().map(str::to_owned).collect();
    for name in &names {
        let count: usize = source.get(name).unwrap().shape.iter().product();
        match source.read_f32(name) {
            Ok(values) => assert_eq!(values.len(), count),
            Err(error) => assert!(error.to_string().contains(name.as_str()), "{error}"),
        }
    }
    Ok(names.len())
}

fn assert_same_tensors(found: &Source, expected: &Source) {
    assert_eq!(found.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    for name in expected.names() {
        let (info, wanted) = (found.get(name).unwrap(), expected.get(name).unwrap());
        assert_eq!((info.shape, info.element_type), (wanted.shape, wanted.element_type), "{name}");
        assert_eq!(found.read_bytes(name).unwrap(), expected.read_bytes(name).unwrap(), "{name}");
        if info.element_type.is_float() {
            assert_eq!(found.read_f32(name).unwrap(), expected.read_f32(name).unwrap(), "{name}");
        }
    }
}

#[test]
fn files_of_torch_save_hold_what_pytorch_says_they_hold() {
    for name in [
        "strided",
        "legacy",
        "protocol5",
        "wrapped",
        "parallel",
        "compiled",
        "aliased",
        "lavis_stage1",
        "eva_vit_g",
    ] {
        let expected = Source::open(&fixture(&format!("{name}.pth.safetensors"))).unwrap();
        let found =
            Source::open(&fixture(&format!("{name}.pth"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_same_tensors(&found, &expected);
    }
}

#[test]
fn what_is_not_the_state_dict_is_left_out_by_name() {
    let source = Source::open(&fixture("wrapped.pth")).unwrap();
    assert_eq!(source.left_out(), ["config", "epoch", "optimizer", "scaler"]);
}

#[test]
fn shards_are_found_through_their_index() {
    let source = Source::open(&fixture("sharded")).unwrap();
    let shards: std::collections::BTreeSet<_> =
        source.names().map(|name| source.get(name).unwrap().file.to_owned()).collect();
    assert_eq!(shards.len(), 2);
    assert_eq!(source.read_f32("shared.weight").unwrap().len(), 11 * 8);
    let by_index = Source::open(&fixture("sharded/model.safetensors.index.json")).unwrap();
    assert_same_tensors(&by_index, &source);
}

fn copy_of_shards() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("sharded")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

#[test]
fn an_absent_shard_is_an_error_that_names_it_and_the_index() {
    let directory = copy_of_shards();
    std::fs::remove_file(directory.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = Source::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors is named by the index but absent"), "{error}");
    assert!(error.contains("model.safetensors.index.json"), "{error}");
}

#[test]
fn an_index_that_does_not_fit_its_shards_is_an_error() {
    let directory = copy_of_shards();
    let index = directory.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let open = |text: &str| {
        std::fs::write(&index, text).unwrap();
        Source::open(directory.path()).unwrap_err().to_string()
    };
    let error = open(&text.replace("\"shared.weight\"", "\"nowhere.weight\""));
    assert!(error.contains("tensor nowhere.weight is absent from model-0000"), "{error}");
    for shard in ["../model-00001-of-00002.safetensors", "/etc/passwd", "", "."] {
        let error = open(&text.replace("model-00001-of-00002.safetensors", shard));
        assert!(error.contains("is not the name of a file beside it"), "{shard}: {error}");
    }
    assert!(open("{").contains("index of shards"));
    assert!(open(&text[..text.len() / 2]).contains("index of shards"));
}

#[test]
fn a_directory_without_a_checkpoint_says_what_was_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let error = Source::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("model.safetensors.index.json") && error.contains("pytorch_model.bin"), "{error}");
}

#[test]
fn a_pickle_that_calls_something_is_an_error_and_is_never_run() {
    let marker = "recap-was-here"; // every attack would create this file in the working directory
    for (name, callable) in [
        ("attack_tensor.pth", "posix.system"),
        ("attack_root.pth", "posix.system"),
        ("attack_legacy.pth", "posix.system"),
        ("call_tensor.pth", "numpy.ones"),
    ] {
        let error = error_of(&fixture(name));
        assert!(error.contains(&format!("calling `{callable}`, which is never executed")), "{name}: {error}");
        assert!(!Path::new(marker).exists(), "{name} was run");
    }
    // a call beside the tensors is skipped like every other value
    let source = Source::open(&fixture("attack_config.pth")).unwrap();
    assert_eq!(source.left_out(), ["config"]);
    for name in source.names() {
        source.read_f32(name).unwrap();
    }
    assert!(!Path::new(marker).exists(), "the call beside the tensors was run");
}

const EVERY_FORMAT: &[&str] = &[
    "strided.pth",
    "legacy.pth",
    "wrapped.pth",
    "attack_config.pth",
    "strided.pth.safetensors",
    "sharded/model-00001-of-00002.safetensors",
    "onnx/opt.dynamo.onnx",
    "onnx/vit.torchscript.onnx",
];

#[test]
fn files_cut_anywhere_are_errors_that_name_them() {
    for name in EVERY_FORMAT {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let name = Path::new(name).file_name().unwrap().to_str().unwrap();
        for length in (0..bytes.len()).step_by(64) {
            let error = open_and_read(&bytes[..length], name).expect_err("half a file was read").to_string();
            assert!(error.contains(name), "cut at {length}: {error}");
        }
    }
}

#[test]
fn flipped_bits_are_errors_or_other_numbers_but_never_a_panic() {
    for name in EVERY_FORMAT {
        let whole = std::fs::read(fixture(name)).unwrap();
        let name = Path::new(name).file_name().unwrap().to_str().unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 150 + 1) {
            for byte in [0, 0x7f, 0xff, whole[place] ^ 1] {
                let mut bytes = whole.clone();
                bytes[place] = byte;
                let _ = open_and_read(&bytes, name);
            }
        }
    }
}

#[test]
fn a_damaged_storage_is_found_by_its_checksum() {
    let whole = std::fs::read(fixture("wrapped.pth")).unwrap();
    let expected = Source::open(&fixture("wrapped.pth.safetensors")).unwrap();
    let weight = expected.read_bytes("weight").unwrap().into_owned();
    let place = whole.windows(weight.len()).position(|window| window == weight).unwrap();
    let mut bytes = whole;
    bytes[place + 5] ^= 0x10;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged.pth");
    std::fs::write(&path, bytes).unwrap();
    let source = Source::open(&path).unwrap();
    let error = source.read_f32("weight").unwrap_err().to_string();
    assert!(error.contains("tensor weight: its checksum") && error.contains("damaged.pth"), "{error}");
    assert!(source.read_f32("bias").is_ok());
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn absurd_claims_of_a_safetensors_header_are_errors() {
    let name = "absurd.safetensors";
    let fails = |bytes: &[u8], reason: &str| {
        let error = open_and_read(bytes, name).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    for length in [u64::MAX, u64::MAX - 8, 1 << 40, 100_000_001, 3] {
        fails(&[&length.to_le_bytes()[..], b"{}"].concat(), &format!("claims {length} bytes"));
    }
    // Eight tensors of nearly 2^61 bytes: to add the header's length to the end of the last would overflow.
    let size = (1u64 << 61) - 1;
    let eight: Vec<_> = (0..8)
        .map(|index| {
            let (start, end) = (index * size, (index + 1) * size);
            format!(r#""t{index}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    fails(&safetensors(&format!("{{{}}}", eight.join(",")), 0), "claims bytes");
    let one = |shape: &str, start: u64, end: u64| {
        safetensors(
            &format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}}}"#),
            16,
        )
    };
    fails(&one("[8]", 0, 32), "tensor w: claims bytes 0 to 32 of 16");
    fails(&one("[4611686018427387905]", 0, 4), "tensor w: of shape [4611686018427387905]");
    fails(&one("[4611686018427387904,4,0]", 0, 0), "tensor w: of shape [4611686018427387904, 4, 0]");
    fails(&one("[5]", 0, 16), "tensor w: of shape [5] and type F32, but has 16 bytes");
    fails(&one("[2]", 0, 8), "end at byte 8 of 16");
    fails(&one("[2]", 8, 16), "tensor w: begins at byte 8, expected 0");
    fails(&one("[4]", 16, 0), "tensor w: claims bytes 16 to 0");
    fails(&one("[-4]", 0, 16), "tensor w: invalid value");
    fails(
        &safetensors(r#"{"w":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}}"#, 16),
        "tensor w: unknown variant",
    );
}

/// A legacy file of one tensor with the given fields of its description, and a storage of six numbers.
fn legacy(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 2, 0x8a, 10];
    bytes.extend_from_slice(&[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.']);
    bytes.extend_from_slice(b"\x80\x02M\xe9\x03.");
    bytes.extend_from_slice(b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    bytes.extend_from_slice(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n");
    bytes.extend_from_slice(
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06NtQ",
    );
    bytes.extend_from_slice(&[offset, shape, strides].concat());
    bytes.extend_from_slice(b"\x89}tRs.");
    bytes.extend_from_slice(b"\x80\x02]X\x01\x00\x00\x000a.");
    bytes.extend_from_slice(&6u64.to_le_bytes());
    bytes.extend((0..6).flat_map(|value| (value as f32).to_le_bytes()));
    bytes
}

fn read_legacy(offset: &[u8], shape: &[u8], strides: &[u8]) -> Result<Vec<f32>, SourceError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("crafted.pt");
    std::fs::write(&path, legacy(offset, shape, strides)).unwrap();
    Source::open(&path)?.read_f32("w")
}

#[test]
fn strides_may_overlap_but_not_leave_their_storage() {
    assert_eq!(read_legacy(b"K\x01", b"K\x02K\x02\x86", b"K\x02K\x01\x86").unwrap(), [1., 2., 3., 4.]);
    assert_eq!(read_legacy(b"K\x00", b"K\x02K\x02\x86", b"K\x01K\x01\x86").unwrap(), [0., 1., 1., 2.]);
    assert_eq!(read_legacy(b"K\x05", b"K\x03\x85", b"K\x00\x85").unwrap(), [5., 5., 5.]);
    assert_eq!(read_legacy(b"K\x05", b")", b")").unwrap(), [5.]);
    let fails = |offset: &[u8], shape: &[u8], strides: &[u8], reason: &str| {
        let error = read_legacy(offset, shape, strides).unwrap_err().to_string();
        assert!(error.contains("tensor w: ") && error.contains(reason), "{error}");
    };
    fails(b"K\x03", b"K\x02K\x02\x86", b"K\x02K\x01\x86", "leaves its storage of 6 elements");
    fails(b"K\x00", b"K\x02\x85", b"J\xff\xff\xff\xff\x85", "negative");
    fails(b"J\xff\xff\xff\xff", b"K\x02\x85", b"K\x01\x85", "negative");
    fails(b"K\x00", b"K\x02\x85", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85", "leaves its storage");
    fails(b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x02\x85", b"K\x01\x85", "leaves its storage");
    // a stride of zero makes any number of elements out of one
    fails(b"K\x00", b"J\xff\xff\xff\x7f\x85", b"K\x00\x85", "made out of a file of");
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x86";
    fails(b"K\x00", huge, b"K\x00K\x00\x86", "overflows");
    // without an element too: the product of the other sizes is taken elsewhere
    fails(b"K\x00", &[b"(", &huge[..20], b"K\x00t"].concat(), b"(K\x00K\x00K\x00t", "overflows");
}

/// A zip archive of torch.save with this pickle and no storages.
fn archive(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("archive/data.pkl", stored).unwrap();
    writer.write_all(pickle).unwrap();
    writer.finish().unwrap().into_inner()
}

fn error_of_pickle(pickle: &[u8]) -> String {
    open_and_read(&archive(pickle), "crafted.pth").unwrap_err().to_string()
}

#[test]
fn deep_cyclic_and_growing_pickles_cost_no_more_than_their_length() {
    let million = 1_000_000;
    // lists in lists, a million deep
    let deep = [&b"\x80\x02"[..], &b"]".repeat(million), &b"a".repeat(million - 1), b"."].concat();
    assert!(error_of_pickle(&deep).contains("no dictionary of tensors"));
    let tuples = [&b"\x80\x02N"[..], &b"\x85".repeat(million), b"."].concat();
    assert!(error_of_pickle(&tuples).contains("no dictionary of tensors"));
    // a dictionary that wraps itself
    let cyclic = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.";
    assert!(error_of_pickle(cyclic).contains("wrapped too deep"));
    // each list holds the one before twice: 2^1000 leaves, were they copied
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for _ in 0..1000 {
        laughs.extend_from_slice(b"]h\x00ah\x00aq\x00");
    }
    laughs.push(b'.');
    assert!(error_of_pickle(&laughs).contains("no dictionary of tensors"));
    // a call that takes the last call as its function, a million times
    let calls = [&b"\x80\x02cm\nf\n"[..], &b")R".repeat(million), b"."].concat();
    assert!(error_of_pickle(&calls).contains("is made by calling"));
    // one long list, turned into dictionaries over and over
    let pairs = b"K\x01K\x02\x86".repeat(10_000);
    let copies = b"h\x00h\x01\x85R0".repeat(10_000);
    let many =
        [&b"\x80\x02ccollections\nOrderedDict\nq\x00]("[..], &pairs, b"eq\x01", &copies, b"."].concat();
    assert!(error_of_pickle(&many).contains("more than"));
}

#[test]
fn broken_pickles_are_errors_that_name_the_place() {
    for (pickle, reason) in [
        (&b""[..], "ends too early"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x02R.", "without its operand"),
        (b"\x80\x02(N0t0.", "without its operand"),
        (b"\x80\x02t.", "without its mark"),
        (b"\x80\x02h\x07.", "was not kept"),
        (b"\x80\x02NK\x01a.", "no list"),
        (b"\x80\x02NNNs.", "no dictionary"),
        (b"\x80\x02\x82\x01.", "unknown instruction"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "ends too early"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc", "ends too early"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", "ends too early"),
    ] {
        let error = error_of_pickle(pickle);
        assert!(error.contains(reason) && error.contains("crafted.pth"), "{pickle:?}: {error}");
    }
}

#[test]
fn other_archives_are_errors() {
    use std::io::Write;
    let zipped = |names: &[&str], method| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for name in names {
            writer.start_file(*name, options).unwrap();
            writer.write_all(b"\x80\x02}. and more of the same").unwrap();
        }
        open_and_read(&writer.finish().unwrap().into_inner(), "other.pth").unwrap_err().to_string()
    };
    let stored = zip::CompressionMethod::Stored;
    assert!(zipped(&["readme.txt"], stored).contains("without data.pkl"));
    assert!(zipped(&["a/data.pkl", "a/constants.pkl"], stored).contains("TorchScript"));
    assert!(zipped(&["a/data.pkl", "a/byteorder"], stored).contains("byte order"));
    assert!(zipped(&["a/data.pkl"], zip::CompressionMethod::Deflated).contains("is compressed"));
    assert!(open_and_read(b"hello, this is not a checkpoint", "note.txt").is_err());
    assert!(open_and_read(b"", "empty.bin").is_err());
}

/// A field of a protobuf message that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
    message
}

/// An ONNX model of one tensor `w` of two axes.
fn model(data_type: u8, data: &[u8]) -> Vec<u8> {
    let tensor = [&[8, 1, 8, 2, 16, data_type][..], &field(8, b"w"), data].concat();
    field(7, &field(5, &tensor))
}

fn read_model(bytes: &[u8]) -> Result<Vec<f32>, SourceError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("crafted.onnx");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(directory.path().join("beside.bin"), [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 1]).unwrap();
    Source::open(&path)?.read_f32("w")
}

#[test]
fn every_way_that_onnx_keeps_numbers_is_read() {
    let numbers = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    assert_eq!(read_model(&model(1, &field(9, &numbers))).unwrap(), [1., 2.]);
    assert_eq!(read_model(&model(1, &field(4, &numbers))).unwrap(), [1., 2.]);
    let doubles = [1f64.to_le_bytes(), 2f64.to_le_bytes()].concat();
    assert_eq!(read_model(&model(11, &field(10, &doubles))).unwrap(), [1., 2.]);
    // bfloat16 1.0 and 2.0, as varints of 16 bits
    assert_eq!(read_model(&model(16, &field(5, &[0x80, 0x7f, 0x80, 0x80, 1]))).unwrap(), [1., 2.]);
    assert_eq!(read_model(&model(10, &field(9, &[0, 0x3c, 0, 0x40]))).unwrap(), [1., 2.]);
}

/// The fields of a tensor with external data.
fn external(entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): &(&str, &str)| {
        field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
    };
    [entries.iter().flat_map(entry).collect(), vec![14 << 3, 1]].concat()
}

#[test]
fn external_data_is_read_from_beside_the_model_and_from_nowhere_else() {
    let beside = |offset: &str, length: &str| {
        let entries = [("location", "beside.bin"), ("offset", offset), ("length", length)];
        read_model(&model(1, &external(&entries)))
    };
    assert_eq!(beside("0", "8").unwrap(), [1., 2.]);
    assert_eq!(read_model(&model(1, &external(&[("location", "beside.bin")]))).unwrap(), [1., 2.]);
    for (offset, length) in [("2", "8"), ("18446744073709551615", "8"), ("0", "4"), ("-1", "8"), ("0", "9")] {
        let error = beside(offset, length).unwrap_err().to_string();
        assert!(error.contains("tensor w: ") && error.contains("crafted.onnx"), "{error}");
    }
    for location in ["../beside.bin", "/etc/passwd", "a/../../b", ""] {
        let error = read_model(&model(1, &external(&[("location", location)]))).unwrap_err().to_string();
        assert!(error.contains("outside of the model's folder"), "{location}: {error}");
    }
    let error = read_model(&model(1, &external(&[("location", "absent.bin")]))).unwrap_err().to_string();
    assert!(error.contains("absent.bin"), "{error}");
}

#[test]
fn wrong_claims_of_an_onnx_model_are_errors() {
    let numbers = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    let twice = field(9, &numbers).repeat(2);
    for (bytes, reason) in [
        (model(1, &field(9, &numbers[..7])), "expected 8 bytes"),
        (model(1, &twice), "in 2 pieces"),
        (model(1, &[]), "got 0"),
        (model(1, &[0x25, 0, 0, 0, 0]), "one by one"),
        (model(8, &[]), "of type Other"),
        (model(16, &field(5, &[1, 0xff])), "past the end"),
        (
            field(7, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            "claims 18446744073709551615 bytes",
        ),
        (field(8, b"x"), "no graph"),
    ] {
        let error = read_model(&bytes).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("crafted.onnx"), "{error}");
    }
    let message = [&[8][..], &[0xff; 9], &[1, 16, 1], &field(8, b"w")].concat();
    assert!(read_model(&field(7, &field(5, &message))).unwrap_err().to_string().contains("overflows"));
    // without an element, and of a type that cannot be read
    for (data_type, last) in [(1, 0), (8, 1)] {
        let message = [&[8][..], &[0xff; 9], &[1, 8, 4, 8, last, 16, data_type], &field(8, b"w")].concat();
        let error = read_model(&field(7, &field(5, &message))).unwrap_err().to_string();
        assert!(error.contains("overflows"), "{error}");
    }
    // empty nodes: two bytes each in the file, far more in memory
    let error = read_model(&field(7, &field(1, &[]).repeat(3 << 20))).unwrap_err().to_string();
    assert!(error.contains("more than 2097152 nodes"), "{error}");
}
