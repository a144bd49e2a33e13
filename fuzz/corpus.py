"""Makes the seeds in fuzz/corpus: small files of every kind, by hand or from the tests' fixtures.

    python3 fuzz/corpus.py

Uses the standard library only; every run writes the same bytes. Files with other names are findings of earlier runs
and stay.
"""

import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz/corpus"
MAX_BYTES = 10_000


def seed(target, name, content):
    if isinstance(content, str):
        content = content.encode()
    assert len(content) <= MAX_BYTES, f"{target}/{name} has {len(content)} bytes"
    path = CORPUS / target / f"seed-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fixture(target, path):
    """A copy of a fixture; its name tells the folder too."""
    seed(target, "-".join(Path(path).parts[3:]), (ROOT / path).read_bytes())


def zipped(members, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return out.getvalue()


def annotations():
    msrvtt = {
        "videos": [{"video_id": "video0", "split": "train", "category": 9, "start time": 1.5},
                   {"video_id": "video1", "split": "test"}],
        "sentences": [{"caption": "a car", "video_id": "video1", "sen_id": 0},
                      {"caption": "two \u00e9", "video_id": "video0"}],
    }
    coco = {
        "karpathy": {"images": [{"filepath": "val2014", "filename": "COCO_val2014_000000000042.jpg", "cocoid": 42,
                                 "split": "restval", "sentences": [{"raw": "A dog."}]}]},
        "official": {"images": [{"id": 42, "file_name": "a.jpg"}], "annotations": [{"image_id": 42, "caption": "A"}]},
        "lavis": [{"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["A dog."], "split": "val"}],
        "map": {"42": ["A dog."], "b": []},
    }
    corpus = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    corpus += 'b,5,9,1,clean,3,English,"A man, ""running""."\nb,5,9,1,clean,3,German,Ein\n'
    qa = [{"answer": "couch", "category_id": 14, "id": 5, "question": "what is it?", "video_id": 6513}]
    skips = {"dataset": "own", "clips": [
        {"id": "a", "split": "train", "why": "missing"},
        {"id": "b", "split": "test", "why": "undecodable", "path": "b.mp4", "bytes": 7, "error": "x"}]}
    texts = {
        "msrvtt": json.dumps(msrvtt),
        "msvd-corpus": corpus,
        "msvd-mapping": "b_5_9 vid1200\na_0_3 vid1201\n",
        "msvd-sentences": "vid1\ta man runs\nvid1\ta man\r\n\nvid2\tdogs\n",
        "vatex": json.dumps([{"videoID": "a_000001_000011", "enCap": ["one", "two"], "chCap": ["\u4e00"]}]),
        "vatex-lines": '{"vid_name": "a", "clip_id": 25991, "descs": [{"desc": "one", "desc_id": 1}]}\n'
                       '{"vid_name": "b", "descs": []}\n',
        "vatex-mapping": "a_000001_000011 video7\n",
        "qa": json.dumps(qa),
        "qa-table": 'video,question,answer,qid,type\n6513,"who, then",man,6,14\n',
        "own-table": 'video,caption,split\na.mp4,one,train\nb.mp4,"two, then",test\n',
        "own-tabs": "Video\tCaption\na.mp4\tone \"b\nb.mp4\ttwo\n",
        "own-lines": "a.mp4\tone\nb.mp4#1\ttwo\n",
        "own-array": '[{"video": "a.mp4", "caption": ["one", "three"]}, {"file": "b", "text": "x", "split": null}]',
        "own-objects": '{"video": "a.mp4", "caption": "one"}\n{"id": 7, "question": "q?", "answer": "x", "qid": 1}\n',
        "own-map": '\ufeff{"a.mp4": ["one", "three"], "b.mp4": "two"}',
        "flickr": "1.jpg#0\tA child .\n1.jpg#1\tA girl .\n",
        "list": "video0\nvideo1.mp4\n",
        "skips": json.dumps(skips),
    } | {f"coco-{name}": json.dumps(value) for name, value in coco.items()}
    for name, text in texts.items():
        seed("annotations", name, text)
    seed("annotations", "gzip", gzip.compress(texts["own-table"].encode(), mtime=0))
    seed("annotations", "zip", zipped({"__MACOSX/._a.json": b"\0", "a.json": texts["vatex"]}, zipfile.ZIP_DEFLATED))


def caption_files():
    texts = {
        "results": '[{"image_id": 7, "caption": "a dog"}, {"image_id": "8", "caption": ""}]',
        "coco": '{"images": [{"id": 7}], "annotations": [{"image_id": 7, "id": 1, "caption": "A dog."}]}',
        "by-id": '{"video0": "a man", "video1": ["a dog"], "video2": [{"caption": "c"}]}',
        "lines": '{"image_id": 1, "caption": "a"}\n{"image_id": 2, "caption": "b"}\n',
        "msrvtt": '{"videos": [{"video_id": "video1", "id": 1, "split": "test"}], '
                  '"sentences": [{"caption": "a", "video_id": "video1", "sen_id": 0}]}',
        "msvd": "vid1\ta man runs\nvid1\ta man\r\n\nvid2\tdogs\n",
        "msvd-table": ',VideoID,Start,End,Language,Description\n0,x-_,1,9,English,"A ""b"", c"\n1,x-_,1,9,German,E\n',
        "vatex": '{"vid_name": "v", "clip_id": 3, "descs": [{"desc": "a"}]}\n{"videoID": "w", "enCap": ["b"]}',
        "wrapped": '{"predictions": [{"video_id": 3, "caption": "x"}]}',
        "lists": '{"vid1": ["a", "b"], "vid2": ["c\\nd"]}',
    }
    for name, text in texts.items():
        seed("caption_files", name, text)
    seed("caption_files", "gzip", gzip.compress(texts["lists"].encode(), mtime=0))
    seed("caption_files", "zip", zipped({"a.json": texts["coco"]}, zipfile.ZIP_DEFLATED))


def captions():
    lines = [
        "A man, in red (says): \"Hello!\" twice... it's 10,000 o'clock etc. U.S. <b c='d'> http://a.b/c?d",
        "vitamin c.\nThe boy\nthere are no.\n2 men :-) &amp; a@b.de #1 1/2 +1 555 \u00bd",
        "\u201cquoted\u201d \u2018single\u2019 \u2014 \u2026 \u00e9t\u00e9 \u4e2d\u6587 \U0001f600 a\u00adb \u00a0 can't gonna",
        "<!-- comment\n--> <a b='c\nd'> x\n\n",
    ]
    for place, line in enumerate(lines):
        seed("ptb", str(place), line)
    pairs = [
        "a man is playing the guitar\na person plays a guitar\nthe man 's big guitar",
        "geese .. ... a.b. no. 5 mr. v. t-shirt ''x'' 1,000 a,b\nthe large goose ||| a goose",
        "man man man man man man\nman man man man the man person",
        "\u0416\u0436 \u00c9t\u00e9 \u2013 \u201cbig\u201d\nbig --- 'large' rock'n'roll 80's",
    ]
    for place, pair in enumerate(pairs):
        seed("meteor", str(place), pair)
    # The parts of the compact tables: words, phrases, lists, lemmas, synsets, texts.
    u32 = lambda *numbers: struct.pack(f"<{len(numbers)}I", *numbers)
    u16 = lambda *numbers: struct.pack(f"<{len(numbers)}H", *numbers)
    parts = [
        b"amanpersonplays", u32(0, 1, 4, 10, 15), u16(0, 1, 0, 2, 3), u32(0, 2, 4, 5), u32(0, 2, 2, 2, 3),
        u32(0, 1, 2, 2), u32(1, 0), b"manperson", u32(0, 3, 9), u32(0, 1, 3), u32(1, 1, 2), b"goose\ngeese\n", b"a\n",
        b"no #NUMERIC_ONLY#\n",
    ]
    def tables(parts):
        start, bounds = 72 + 16 * len(parts), b""
        for part in parts:
            bounds += struct.pack("<QQ", start, start + len(part))
            start += len(part)
        return bounds + b"".join(parts)
    seed("meteor_tables", "small", tables(parts))
    # Billions of synsets of one lemma.
    seed("meteor_tables", "synsets-beyond-the-end", tables(parts[:9] + [u32(0, 1, 0xFFFFFFFF)] + parts[10:]))


def box(kind, *content):
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + kind + body


def element(code, content, unknown=False):
    size = b"\x01" + (b"\xff" * 7 if unknown else len(content).to_bytes(7, "big"))
    return bytes.fromhex(code) + size + content


def containers():
    ftyp = box(b"ftyp", b"isom\0\0\2\0isomavc1")
    moov = box(b"moov", box(b"mvhd", b"\0" * 100), box(b"trak", box(b"stsd", b"avc1")))
    mdat = box(b"mdat", b"\0" * 40)
    wide = struct.pack(">I4sQ", 1, b"mdat", 20) + b"\0" * 4
    seed("containers", "mp4", ftyp + moov + mdat)
    seed("containers", "mp4-large-box", ftyp + wide + moov + b"\0" * 5)
    seed("containers", "mp4-to-the-end", ftyp + moov + struct.pack(">I", 0) + b"mdat123")
    seed("containers", "mp4-fragments", ftyp + moov + box(b"moof", b"x") + mdat + box(b"mfra"))
    seed("containers", "mp4-encrypted", ftyp + box(b"moov", b"encv") + mdat)
    head = element("1a45dfa3", element("4286", b"\1") + element("4282", b"webm") + element("4285", b"\2"))
    info, cluster = element("1549a966", b"\x2a\xd7\xb1\x83\x0f\x42\x40"), element("1f43b675", b"\xe7\x81\0")
    seed("containers", "matroska", head + element("18538067", info + cluster))
    seed("containers", "matroska-live", head + bytes.fromhex("1853806701ffffffffffffff") + info + cluster)
    seed("containers", "avi", b"RIFF" + struct.pack("<I", 20) + b"AVI LIST\x08\0\0\0hdrlxxxx")
    seed("containers", "ts", (b"G@\0\x10\0" + b"\xff" * 183) * 2)


def png(chunks):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def images():
    size = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(range(9))) * 2)
    seed("images", "png", png([(b"IHDR", size), (b"IDAT", pixels), (b"IEND", b"")]))
    def frame(number):
        return b"fcTL", struct.pack(">IIIIIHHBB", number, 3, 2, 0, 0, 1, 10, 0, 1)
    seed("images", "apng", png([
        (b"IHDR", size), (b"acTL", struct.pack(">II", 2, 0)), frame(0), (b"IDAT", pixels), frame(1),
        (b"fdAT", struct.pack(">I", 2) + pixels), (b"IEND", b"")]))
    picture = b",\0\0\0\0\2\0\2\0\0" + b"\x02\x03\x44\x02\x05\0"
    control = b"!\xf9\x04\x05\x0a\0\0\0"
    seed("images", "gif", b"GIF89a\2\0\2\0\x80\0\0\xff\xff\xff\0\0\0"
         + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0" + (control + picture) * 2 + b";")
    rows = bytes([1, 2, 3, 4, 5, 6, 0, 0] * 2)
    seed("images", "bmp", struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
         + struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 24, 0, len(rows), 2835, 2835, 0, 0) + rows)
    lossless = bytes.fromhex("2f0100001007101111888888fe0700")
    still = b"VP8L" + struct.pack("<I", len(lossless)) + lossless + b"\0" * (len(lossless) % 2)
    seed("images", "webp", b"RIFF" + struct.pack("<I", 4 + len(still)) + b"WEBP" + still)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0\1\0\0\0\0\0" + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    anmf = b"\0" * 6 + b"\1\0\0\0\0\0" + b"\x0a\0\0\0" + still
    extended += (b"ANMF" + struct.pack("<I", len(anmf)) + anmf) * 2
    seed("images", "webp-animation", b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended)
    # A grey JPEG of 8 x 8 pixels: quantisation, frame, two Huffman tables of one code each, scan.
    seed("images", "jpeg", b"\xff\xd8" + b"\xff\xdb\0\x43\0" + b"\x10" * 64 + b"\xff\xc0\0\x0b\x08\0\x08\0\x08\1\1\x11\0"
         + b"\xff\xc4\0\x14\0\1" + b"\0" * 15 + b"\0" + b"\xff\xc4\0\x14\x10\1" + b"\0" * 15 + b"\0"
         + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\x3f" + b"\xff\xd9")


def bitstreams():
    unit = lambda header: struct.pack(">I", 2) + bytes([header, 0])
    seed("bitstreams", "h264", unit(0x67) + unit(0x68) + unit(0x65) + unit(0x41) + unit(0x01))
    seed("bitstreams", "vp8", b"\x10\2\0\x9d\x01\x2a")
    seed("bitstreams", "vp9", b"\x82\x49\x83\x42")
    seed("bitstreams", "vp9-superframe", b"\x84\x86\0\xc1\1\2\xc1")
    seed("bitstreams", "vp9-profile-3", b"\xb2\0\0")


def webdataset():
    def shard(members, form=tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        # Readers do not need the padding to a whole record.
        return out.getvalue().rstrip(b"\0") + b"\0" * 1024
    seed("webdataset", "text", shard([("a/0.jpg", b"jpeg"), ("a/0.txt", b"a cat\n"), ("1.png", b"p"), ("1.txt", b"x")]))
    seed("webdataset", "json", shard([("0.jpg", b"x"), ("0.json", b'{"caption": " a cat ", "width": 5}')]))
    long = "folder/" * 20 + "0"
    for name, form in [("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)]:
        seed("webdataset", f"long-names-{name}", shard([(f"{long}.jpg", b"x"), (f"{long}.txt", b"\xc3\xa9")], form))


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece():
    def model(algorithm, extra=b""):
        pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x41>", 0.0, 6), ("\u2581", -3.0, 1),
                  ("a", -4.0, 1), ("b", -5.0, 1), ("ab", -1.0, 1), ("\u2581ab", -2.0, 1), ("<user>", 0.0, 4)]
        body = b"".join(field(1, field(1, text) + field(2, score) + field(3, kind)) for text, score, kind in pieces)
        return body + field(2, field(3, algorithm) + field(35, 1)) + extra
    seed("sentencepiece", "unigram", model(1))
    seed("sentencepiece", "pairs", model(2, field(3, field(1, "identity") + field(3, 0))))
    # A character map: the size of the trie, the trie, the replacements.
    charsmap = struct.pack("<II", 8, 0) + struct.pack("<I", 0) + b"a\0"
    seed("sentencepiece", "character-map", model(1, field(3, field(2, charsmap))))
    too_long = struct.pack("<I", 0xF5FFFFFF) + b"\0" * 5
    seed("sentencepiece", "character-map-too-long", model(1, field(3, field(2, too_long))))


def tokenizers():
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6, "\u0120": 7, "\u0120ab": 8,
                  "\u010a": 9}
    merges = "#version: 0.2\na b\n\u0120 ab\n"
    seed("tokenizers", "opt", json.dumps(vocabulary, ensure_ascii=False) + "\0" + merges)
    seed("tokenizers", "bert", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n\u00c9\ne\n")
    common = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 0, "content": "<pad>"} | special, {"id": 1, "content": "</s>"} | special]
    word_level = common | {
        "added_tokens": added, "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3}, "unk_token": "<unk>"}}
    unigram = common | {
        "added_tokens": added, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": False,
                  "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581a", -1.5], ["b", -2.0]]}}
    pairs = common | {
        "added_tokens": added, "normalizer": {"type": "Prepend", "prepend": "\u2581"}, "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4, "ab": 5}, "merges": [["a", "b"]]}}
    mapped = unigram | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////9QAAAAA="}}
    sparse = word_level | {"model": word_level["model"] | {"vocab": {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 1 << 31}}}
    for name, document in [("word-level", word_level), ("unigram", unigram), ("pairs", pairs),
                           ("character-map-too-long", mapped), ("ids-left-out", sparse)]:
        seed("tokenizers", name, json.dumps(document, ensure_ascii=False))


class Storage:
    """A tensor's storage, pickled as PyTorch does: by an identifier."""

    def __init__(self, kind, key, count):
        self.identifier = ("storage", kind, key, "cpu", count)


class Pickler(pickle.Pickler):
    def persistent_id(self, item):
        return item.identifier if isinstance(item, Storage) else None


def pickled(value, protocol=2):
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


def pickles():
    from collections import OrderedDict
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules |= {"torch": torch, "torch._utils": utils}

    def function(module, name):
        def call(*_):
            raise AssertionError("never called")
        call.__module__, call.__qualname__, call.__name__ = module.__name__, name, name
        setattr(module, name, call)
        return call

    rebuild = function(utils, "_rebuild_tensor_v2")
    kind = type("FloatStorage", (), {"__module__": "torch"})
    torch.FloatStorage = kind

    class Tensor:
        def __init__(self, key, offset, shape, strides):
            self.arguments = (Storage(kind, key, 16), offset, shape, strides, False, OrderedDict())

        def __reduce__(self):
            return rebuild, self.arguments

    state = OrderedDict(weight=Tensor("0", 0, (2, 3), (3, 1)), bias=Tensor("1", 1, (3,), (1,)))
    strided = {"model": {"w": Tensor("0", 0, (3, 2), (1, 3)), "e": Tensor("1", 0, (0, 4), (4, 1))}, "epoch": 7}
    for protocol in (0, 2, 4):
        seed("pickle", f"protocol-{protocol}", pickled(state, protocol))
    seed("pickle", "wrapped", pickled(strided))
    seed("pickle", "values", pickled({"a": [1, 300, 1 << 70, -5, None, True, 1.5, b"x", {1}, ("t",)], "b": "text"}, 5))
    seed("torch", "made", zipped({"a/data.pkl": pickled(state), "a/byteorder": b"little", "a/data/0": b"\0" * 64,
                                  "a/data/1": b"\1" * 16, "a/version": b"3\n"}))
    for name in ["aliased", "attack_legacy", "attack_root", "call_tensor", "legacy", "parallel", "wrapped"]:
        fixture("torch", f"model/tests/fixtures/checkpoints/{name}.pth")


def tensors():
    def safetensors(header, data):
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data
    types_of = {"BF16": 2, "F16": 2, "F64": 8, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, size in types_of.items():
        header[name] = {"dtype": name, "shape": [2, 1], "data_offsets": [start, start + 2 * size]}
        start += 2 * size
    seed("safetensors", "types", safetensors(header, bytes(range(start))))
    seed("safetensors", "empty", safetensors({"a": {"dtype": "F32", "shape": [0, 3], "data_offsets": [0, 0]}}, b""))
    lavis = {name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * place, 8 * place + 8]} for place, name in
             enumerate(["visual_encoder.blocks.0.attn.q_bias", "visual_encoder.blocks.0.attn.v_bias", "ln_vision.bias"])}
    seed("safetensors", "lavis", safetensors(lavis, b"\0\0\x80\x3f" * 6))
    for name in ["aliased", "legacy"]:
        fixture("safetensors", f"model/tests/fixtures/checkpoints/{name}.pth.safetensors")

    def tensor(name, data_type, shape, *data):
        return field(5, b"".join(field(1, size) for size in shape) + field(2, data_type) + field(8, name) + b"".join(data))
    def node(operator, inputs, outputs, name="", *extra):
        names = b"".join(field(1, one) for one in inputs) + b"".join(field(2, one) for one in outputs)
        return field(1, names + field(3, name) + field(4, operator) + b"".join(extra))
    one, two = struct.pack("<f", 1), struct.pack("<ff", 1, 2)
    external = b"".join(field(13, field(1, key) + field(2, value)) for key, value in
                        [("location", "beside.bin"), ("offset", "8"), ("length", "8")]) + field(14, 1)
    graph = [
        node("MatMul", ["x", "onnx::MatMul_1"], ["y"], "/encoder/layers.0/mlp/fc1/MatMul"),
        node("Add", ["y", "encoder.layers.0.mlp.fc1.bias"], ["z"], "/encoder/layers.0/mlp/fc1/Add"),
        node("Constant", [], ["c"], "", field(5, field(1, "value") + tensor("", 1, [1], field(9, one)))),
        node("Gather", ["w", "c"], ["g"], "", field(9, field(1, "pkg.torch.onnx.name_scopes")
                                                  + field(2, "['', 'encoder', 'encoder.embed']"))),
        tensor("onnx::MatMul_1", 1, [1, 2], field(9, two)),
        tensor("encoder.layers.0.mlp.fc1.bias", 1, [2], external),
        tensor("w", 10, [2], field(5, varint(0x3C00) + varint(0x4000))),
        tensor("packed", 16, [2], field(9, b"\x80\x3f\0\x40")),
        tensor("f", 1, [2], field(4, two)),
    ]
    seed("onnx", "made", field(1, 8) + field(2, "pytorch") + field(7, b"".join(graph)))
    seed("onnx", "tensors-only", field(7, b"".join(graph[4:])))


def configs():
    parity = "model/tests/fixtures/parity"
    for name in ["instructblip-llama", "instructblip-t5", "instructblipvideo-llama", "llama-grouped", "opt", "t5-v1.0",
                 "t5-three-tables"]:
        fixture("configs", f"{parity}/{name}/config.json")
    for name in ["opt", "llama-grouped-whole"]:
        fixture("configs", f"{parity}/lora/{name}/adapter_config.json")
    fixture("configs", f"{parity}/opt/generation_config.json")
    fixture("configs", "model/tests/fixtures/checkpoints/sharded/model.safetensors.index.json")
    for name in ["opt", "llama-grouped", "t5-v1.0"]:
        whole = json.loads((ROOT / parity / name / "config.json").read_text())
        seed("configs", f"language-model-{name}", json.dumps(whole["text_config"]))


if __name__ == "__main__":
    annotations()
    caption_files()
    captions()
    containers()
    images()
    bitstreams()
    webdataset()
    sentencepiece()
    tokenizers()
    pickles()
    tensors()
    configs()
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes")
