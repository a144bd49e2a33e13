//! Sentencepiece's `tokenizer.model` (`spiece.model`): a protobuf message, converted to the same algorithm of
//! the `tokenizers` crate as by transformers' converters: unigram for T5, BPE with byte fallback for LLaMA.

use super::{SPACE, added, failed};
use crate::error::Result;
use base64::prelude::{BASE64_STANDARD, Engine};
use prost::Message;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// A piece of the vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    BytePairs,
}

/// The required parts of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    pub(super) byte_fallback: bool,
    pub(super) charsmap: Vec<u8>,
    dummy_prefix: bool,
}

/// Maximum size of a model; the largest published ones have 5 MB. A piece takes two bytes of a malicious
/// file, and forty in memory.
const MAX_BYTES: usize = 32 << 20;

/// The fields of `sentencepiece_model.proto` that matter here, with its numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct ModelMessage {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceMessage>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerMessage>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PieceMessage {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrainerMessage {
    #[prost(int32, optional, tag = "3")]
    algorithm: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    space_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NormalizerMessage {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    dummy_prefix: Option<bool>,
}

/// Parses the message; the error is a reason. Defaults of absent fields are those of the schema.
pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Model, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!(
            "has {} bytes, expected at most {MAX_BYTES} of a sentencepiece model",
            bytes.len()
        ));
    }
    let message =
        ModelMessage::decode(bytes).map_err(|error| format!("is no sentencepiece model: {error}"))?;
    let trainer = message.trainer.unwrap_or_default();
    let normalizer = message.normalizer.unwrap_or_default();
    let algorithm = match trainer.algorithm {
        None | Some(1) => Algorithm::Unigram,
        Some(2) => Algorithm::BytePairs,
        Some(other) => return Err(format!("was trained as kind {other}, expected 1 (unigram) or 2 (bpe)")),
    };
    if trainer.space_as_suffix == Some(true) {
        return Err("puts spaces at the end of words, which is not supported".into());
    }
    let model = Model {
        pieces: message.pieces.into_iter().map(piece).collect::<std::result::Result<_, _>>()?,
        algorithm,
        byte_fallback: trainer.byte_fallback.unwrap_or(false),
        charsmap: normalizer.charsmap.unwrap_or_default(),
        dummy_prefix: normalizer.dummy_prefix.unwrap_or(true),
    };
    let mut seen = HashMap::new();
    for (id, piece) in model.pieces.iter().enumerate() {
        if let Some(first) = seen.insert(piece.text.as_str(), id) {
            return Err(format!("has the piece {:?} twice, as {first} and {id}", piece.text));
        }
    }
    match model.pieces.iter().filter(|piece| piece.kind == Kind::Unknown).count() {
        1 => Ok(model),
        count => Err(format!("has {count} pieces for unknown text, expected 1 in a sentencepiece model")),
    }
}

fn piece(message: PieceMessage) -> std::result::Result<Piece, String> {
    let (text, score) = (message.text.unwrap_or_default(), message.score.unwrap_or_default());
    let kind = match message.kind {
        None | Some(1) => Kind::Normal,
        Some(2) => Kind::Unknown,
        Some(3) => Kind::Control,
        Some(4) => Kind::UserDefined,
        Some(5) => Kind::Unused,
        Some(6) => Kind::Byte,
        Some(kind) => return Err(format!("has a piece of the unknown kind {kind}")),
    };
    if !score.is_finite() {
        return Err(format!("has the piece {text:?} with the score {score}"));
    }
    Ok(Piece { text, score, kind })
}

/// Checks the length of the table at the start of a character map, for which the `tokenizers` crate reserves
/// memory unseen: up to 4 GiB.
pub(super) fn check_charsmap(map: &[u8]) -> std::result::Result<(), String> {
    let left = map.len().saturating_sub(4);
    match map.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize) {
        Some(length) if length <= left => Ok(()),
        claimed => {
            let claimed = claimed.unwrap_or_default();
            Err(format!("has a character map whose table claims {claimed} bytes of the {left} that follow"))
        }
    }
}

/// Checks every character map of a `tokenizer.json`. The `tokenizers` crate reads a map before it has seen
/// the rest of the file, so that a fault elsewhere is an error here too.
pub(super) fn check_charsmaps(text: &str) -> std::result::Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        normalizer: Value,
    }
    let document: Document =
        serde_json::from_str(text).map_err(|error| format!("is no tokenizer.json: {error}"))?;
    let mut values = vec![&document.normalizer];
    while let Some(value) = values.pop() {
        if let Some(map) =
            value["precompiled_charsmap"].as_str().and_then(|map| BASE64_STANDARD.decode(map).ok())
        {
            check_charsmap(&map)?;
        }
        values.extend(value.as_array().into_iter().flatten());
        values.extend(value.as_object().into_iter().flatten().map(|(_, value)| value));
    }
    Ok(())
}

/// A pair of pieces whose concatenation is a piece.
struct Merge<'a> {
    /// Score of the concatenation.
    score: f32,
    /// Lengths in characters.
    lengths: [usize; 2],
    ids: [usize; 2],
    pair: [&'a str; 2],
}

impl Model {
    /// Converts the model to a tokenizer of the `tokenizers` crate.
    pub(super) fn build(&self, path: &Path) -> Result<tokenizers::Tokenizer> {
        let document = match self.algorithm {
            Algorithm::Unigram => self.unigram(),
            Algorithm::BytePairs => self.byte_pairs(),
        };
        let mut tokenizer = super::from_document(&document, Some(path))?;
        if self.algorithm == Algorithm::Unigram && !self.charsmap.is_empty() {
            check_charsmap(&self.charsmap).map_err(|reason| failed(Some(path), format!("it {reason}")))?;
            let map = super::guarded(|| tokenizers::normalizers::Precompiled::from(&self.charsmap))
                .map_err(|reason| failed(Some(path), reason))?
                .map_err(|error| failed(Some(path), format!("its character map: {error}")))?;
            tokenizer.with_normalizer(Some(map)).map_err(|error| failed(Some(path), error.to_string()))?;
        }
        Ok(tokenizer)
    }

    /// T5: characters are normalised, words are split at white space and start with a space mark, and 100
    /// sentinels follow the vocabulary.
    fn unigram(&self) -> Value {
        let mut vocabulary: Vec<Value> =
            self.pieces.iter().map(|piece| json!([piece.text, f64::from(piece.score)])).collect();
        let sentinels: Vec<String> = (0..100).rev().map(|number| format!("<extra_id_{number}>")).collect();
        let known = self.pieces.iter().any(|piece| piece.text == "<extra_id_0>");
        let sentinels = if known { &[] } else { sentinels.as_slice() };
        let mut special = self.special();
        for sentinel in sentinels {
            special.push(added(vocabulary.len(), sentinel, true, false));
            vocabulary.push(json!([sentinel, 0.0]));
        }
        let unknown = self.pieces.iter().position(|piece| piece.kind == Kind::Unknown);
        let end = self.pieces.iter().position(|piece| piece.text == "</s>");
        let metaspace =
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": special,
            "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
            "post_processor": end.map(|id| super::template(None, Some(("</s>", id)))),
            "decoder": metaspace,
            "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": self.byte_fallback},
        })
    }

    /// LLaMA: spaces become space marks, nothing else is normalised, unknown characters become bytes.
    fn byte_pairs(&self) -> Value {
        let vocabulary: serde_json::Map<String, Value> =
            self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.clone(), json!(id))).collect();
        let unknown = self.pieces.iter().find(|piece| piece.kind == Kind::Unknown);
        let unknown = unknown.map_or("<unk>", |piece| piece.text.as_str());
        let start = self.pieces.iter().position(|piece| piece.text == "<s>");
        let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.dummy_prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": self.special(),
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": start.map(|id| super::template(Some(("<s>", id)), None)),
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": self.byte_fallback,
                      "vocab": vocabulary, "merges": self.merges()},
        })
    }

    fn special(&self) -> Vec<Value> {
        self.pieces
            .iter()
            .enumerate()
            .filter_map(|(id, piece)| match piece.kind {
                Kind::Control | Kind::Unknown => Some(added(id, &piece.text, true, false)),
                Kind::UserDefined => Some(added(id, &piece.text, false, false)),
                Kind::Normal | Kind::Unused | Kind::Byte => None,
            })
            .collect()
    }

    /// The merges, best first. Sentencepiece stores no merges: it joins the neighbours whose concatenation
    /// has the highest score, so each way to split a piece into two pieces is a merge with the piece's score.
    fn merges(&self) -> Vec<[&str; 2]> {
        let ids: HashMap<&str, usize> =
            self.pieces.iter().enumerate().map(|(id, piece)| (piece.text.as_str(), id)).collect();
        let mut merges: Vec<Merge<'_>> = Vec::new();
        for piece in &self.pieces {
            let first = merges.len();
            for (place, (cut, _)) in piece.text.char_indices().skip(1).enumerate() {
                let (left, right) = piece.text.split_at(cut);
                let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) else { continue };
                merges.push(Merge {
                    score: piece.score,
                    lengths: [place + 1, right.chars().count()],
                    ids: [left_id, right_id],
                    pair: [left, right],
                });
            }
            merges[first..].sort_by_key(|merge| merge.ids);
        }
        // Stable: equal merges stay in the vocabulary's order.
        merges.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
        merges.into_iter().map(|merge| merge.pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let mut message = field(1, text.as_bytes());
        message.push(2 << 3 | 5);
        message.extend(score.to_le_bytes());
        message.extend([3 << 3, kind]);
        field(1, &message)
    }

    fn model(algorithm: u8) -> Vec<u8> {
        let pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<0x41>", 0.0, 6)];
        let words = [("▁", -3.0, 1), ("a", -4.0, 1), ("b", -5.0, 1), ("ab", -1.0, 1), ("▁ab", -2.0, 1)];
        let mut bytes: Vec<u8> =
            pieces.iter().chain(&words).flat_map(|(text, score, kind)| piece(text, *score, *kind)).collect();
        // Field 35 (byte fallback) takes two bytes of tag.
        bytes.extend(field(2, &[3 << 3, algorithm, 0x98, 0x02, 1]));
        bytes
    }

    #[test]
    fn pieces_and_settings_are_read() {
        let model = parse(&model(2)).unwrap();
        assert_eq!((model.algorithm, model.byte_fallback), (Algorithm::BytePairs, true));
        assert_eq!(model.pieces[7], Piece { text: "ab".into(), score: -1.0, kind: Kind::Normal });
        assert_eq!(model.merges(), [["a", "b"], ["▁", "ab"]]);
        let tokenizer = model.build(Path::new("m")).unwrap();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("ab b"), [1, 8, 4, 6]);
        assert_eq!(ids("A"), [1, 4, 3]);
    }

    #[test]
    fn a_unigram_model_chooses_the_most_probable_pieces() {
        let tokenizer = parse(&model(1)).unwrap().build(Path::new("m")).unwrap();
        assert_eq!(tokenizer.encode("  ab\nb", true).unwrap().get_ids(), [8, 4, 6, 2]);
        assert_eq!(tokenizer.token_to_id("<extra_id_0>"), Some(9 + 99));
    }

    #[test]
    fn errors_of_broken_models_have_a_reason() {
        let reason = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert!(reason(b"").contains("0 pieces for unknown text"));
        assert!(reason(&[0x0a, 0xff, 0xff, 0x03]).contains("no sentencepiece model: "));
        assert!(reason(&[0xff; 11]).contains("varint"));
        assert!(reason(&[0x0e]).contains("wire type"));
        assert!(reason(&field(1, &field(1, b"\xff"))).contains("UTF-8"));
        assert!(reason(&vec![0; MAX_BYTES + 1]).contains("33554433 bytes, expected at most"));
        let twice = [model(1), piece("a", 0.0, 1)].concat();
        assert!(reason(&twice).contains("has the piece \"a\" twice"));
        assert!(reason(&piece("x", f32::NAN, 1)).contains("score NaN"));
        assert!(reason(&model(4)).contains("expected 1 (unigram) or 2 (bpe)"));
        let words = [model(1), field(2, &[0xc0, 0x01, 1])].concat();
        assert!(reason(&words).contains("end of words"));
    }

    #[test]
    fn a_character_map_that_claims_more_than_it_has_is_refused() {
        for map in [&b""[..], b"\xff", b"\x08\0\0\0abcd", b"\xff\xff\xff\xf5\0\0\0\0"] {
            let reason = check_charsmap(map).unwrap_err();
            assert!(reason.contains("claims") && reason.contains("that follow"), "{map:?}: {reason}");
        }
        assert_eq!(check_charsmap(b"\x04\0\0\0abcd"), Ok(()));
        let document = |map: &str| {
            format!(
                r#"{{"normalizer": {{"normalizers": [{{"precompiled_charsmap": "{map}"}}]}}, "model": 1}}"#
            )
        };
        assert!(check_charsmaps(&document("////9QAAAAA=")).unwrap_err().contains("of the 4 that follow"));
        assert_eq!(check_charsmaps(&document("BAAAAGFiY2Q=")), Ok(()));
        let broken = document("////9QAAAAA=").replace("\"model\"", "model");
        assert!(check_charsmaps(&broken).unwrap_err().contains("line 1"));
        let message =
            parse(&[model(1), field(3, &field(2, &[0xff; 9]))].concat()).unwrap().build(Path::new("m"));
        assert!(message.unwrap_err().to_string().contains("4294967295 bytes of the 5"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn mutated_models_are_read_without_a_panic(at in any::<prop::sample::Index>(), byte: u8, text in ".{0,40}") {
            for algorithm in [1, 2] {
                let mut bytes = model(algorithm);
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if let Ok(model) = parse(&bytes)
                    && let Ok(inner) = model.build(Path::new("m"))
                    && let Ok(tokenizer) = super::super::Tokenizer::of(inner, None)
                {
                    let _ = tokenizer.encode(&text, 20);
                }
            }
        }

        #[test]
        fn any_character_map_is_used_without_a_crash(map in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,20}") {
            let mut built = parse(&model(1)).unwrap();
            built.charsmap = map;
            if let Ok(inner) = built.build(Path::new("m")) {
                let _ = super::super::Tokenizer::of(inner, None).unwrap().encode(&text, 20);
            }
        }
    }
}
