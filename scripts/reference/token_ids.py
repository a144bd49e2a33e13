"""Token ids of captions and of texts that tokenizers trip over, as transformers and sentencepiece give them.

    python scripts/reference/token_ids.py ../shared/data data/tests/fixtures/tokenizers [--captions N] [--out FILE]

Needs transformers 5.23, sentencepiece 0.2 and protobuf. Without --captions it writes the committed fixture: ids.json
with a few captions, and two small sentencepiece models that it trains itself, so that the tests need no other file.
With --captions N it writes the ids of N captions to FILE, for a run of the same test with
RECAP_TOKENIZER_IDS=FILE cargo test -p data tokenizers.
"""

import argparse
import json
import pathlib
import re
import tempfile
import zipfile

import sentencepiece
import transformers

TRIPPING = [
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "  two  spaces  ", "line\nfeed", "line\n\nfeeds\n", "tab\there", "\r\n",
    "don't can't it's they'll I'd we've", "DON'T", "A.B.C.", "e.g. 3.14, 1,000,000", "#hashtag @name $5 50% & more",
    "hello, world!", "what?!?...", "(parentheses) [brackets] {braces} <angles>", "under_score hy-phen slash/back\\slash",
    "naïve café résumé", "Ünïcödé ÀÉÎÕÜ", "ÅNGSTRÖM ﬁ ligature", "½ ² ③ Ⅳ", "ﬀ ﬃ ſ", "日本語のテスト", "中文字幕", "한국어",
    "русский текст", "عربى", "עברית", "हिन्दी", "ไทย", "😀", "👩‍👩‍👧‍👦 family", "🇩🇪", "a😀b", "\u00a0nbsp\u00a0", "zero\u200bwidth",
    "soft\u00adhyphen", "\ufeffmark", "combining e\u0301", "\u0000null", "control \u0001 \u0007", "\u001cfs", "\u0085nel", "\u2028ls", "\u2029ps",
    "\u3000wide\u3000space", "ＦＵＬＬ　ＷＩＤＴＨ", "“quotes” ‘single’ – — …", "\ufffd replacement", "▁mark ▁▁ marks", "Ġ byte letters Ċ",
    "<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "a</s>b", "x <unk> y", "a <s> b", "x [MASK] y",
    "<extra_id_0>", "fill <extra_id_0> and <extra_id_99>", "<0x41>", "<|endoftext|>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "x" * 120, "ab" * 70, "supercalifragilisticexpialidocious", "zzzqqqxxx", "1234567890" * 3, "İstanbul ẞ ß", "Σίσυφος ΟΔΟΣ",
    "ǅ ǆ", "\U0001d400\U0001d401", "ａ́", "a  b   c    d", "word " * 60, "Q: what? A: that.", "http://a.b/c?d=e&f=g", "C'est l'été",
    "a-b--c---d", "'s 't 're 've 'm 'll 'd", "'S 'T", "  'quoted'  ", ".", "...", "!!", "\u0301", "\u200d", "\u0e33", "ﷺ", "㌀", "™ © ®",
]


def captions(data, count):
    found = []
    for archive, name in [
        ("train_val_annotation.zip", "train_val_videodatainfo.json"),
        ("test_videodatainfo.json.zip", "test_videodatainfo.json"),
    ]:
        with zipfile.ZipFile(data / "annotations/msrvtt" / archive) as opened:
            found += [s["caption"] for s in json.loads(opened.read(name))["sentences"]]
    images = json.loads((data / "flickr8k_1000/captions.json").read_text())
    found += [caption for image in images for caption in image["captions"]]
    step = max(1, len(found) // count)
    return found[::step][:count]


def repaired(merge):
    left = len(merge) // 2
    return merge[:left].replace(" ", "\u00a0") + " " + merge[left + 1 :].replace(" ", "\u00a0")


def published(folder):
    """transformers' tokenizers made from the files in `folder`, by name."""
    opt = transformers.GPT2Tokenizer.from_pretrained(
        folder / "opt", bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True
    )
    # In 5.23 the class takes no notice of add_bos_token; OPT's published tokenizer.json has this template.
    from tokenizers import processors

    opt._tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast
    with tempfile.TemporaryDirectory() as temporary:
        # Some copies of LLaMA's tokenizer.json have lost their no-break spaces, and no library reads them.
        text = (folder / "llama/tokenizer.json").read_text()
        document = json.loads(text)
        spaces = [merge for merge in document["model"]["merges"] if merge.count(" ") != 1]
        document["model"]["merges"] = [
            repaired(merge) if merge in spaces else merge for merge in document["model"]["merges"]
        ]
        document["model"]["vocab"] = {
            (piece.replace(" ", "\u00a0") if spaces else piece): id for piece, id in document["model"]["vocab"].items()
        }
        path = pathlib.Path(temporary) / "tokenizer.json"
        path.write_text(json.dumps(document))
        llama = fast(tokenizer_file=str(path))
    return {
        "bert-base-uncased": transformers.BertTokenizer.from_pretrained(folder / "bert-base-uncased"),
        "opt": opt,
        "t5": fast(tokenizer_file=str(folder / "t5/tokenizer.json")),
        "llama": llama,
    }


def small_models(out, texts):
    """Two small models with T5's and LLaMA's settings. The character map is a few rules instead of all of NFKC's."""
    rules = out / "rules.tsv"
    pairs = {"É": "é", "ﬁ": "fi", "\u00a0": " ", "\t": " ", "\n": " ", "\u3000": " ", "½": "1/2", "…": "..."}
    rules.write_text(
        "".join(
            " ".join(f"{ord(c):X}" for c in left) + "\t" + " ".join(f"{ord(c):X}" for c in right) + "\n"
            for left, right in pairs.items()
        )
    )
    common = {"sentence_iterator": None, "minloglevel": 2, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        **common | {"sentence_iterator": iter(texts)}, model_prefix=str(out / "unigram"), model_type="unigram", vocab_size=300,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv=str(rules),
    )
    sentencepiece.SentencePieceTrainer.train(
        **common | {"sentence_iterator": iter(texts)}, model_prefix=str(out / "pairs"), model_type="bpe", vocab_size=500,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, character_coverage=0.999, split_digits=True,
    )
    rules.unlink()
    for name in ["unigram.vocab", "pairs.vocab"]:
        (out / name).unlink()
    return {name: sentencepiece.SentencePieceProcessor(model_file=str(out / f"{name}.model")) for name in ["unigram", "pairs"]}


def clean_caption(text):
    """What LAVIS's `blip_caption` does, put in our words."""
    text = re.sub(r"\s{2,}", " ", re.sub(r'[.!"()*#:;~]', " ", text.lower()))
    return " ".join(text.rstrip("\n").strip(" ").split(" ")[:50])


def clean_question(text):
    """What LAVIS's `blip_question` does, put in our words."""
    return " ".join(re.sub(r'[.!"()*#:;~]', "", text.lower()).rstrip(" ").split(" ")[:50])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("fixtures", type=pathlib.Path)
    parser.add_argument("--captions", type=int, default=60)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    texts = TRIPPING + captions(options.data, options.captions)
    document = {"transformers": transformers.__version__, "sentencepiece": sentencepiece.__version__, "texts": texts}
    document["captions"] = [clean_caption(text) for text in texts]
    document["questions"] = [clean_question(text) for text in texts]
    document["ids"] = {
        name: [tokenizer(text)["input_ids"] for text in texts]
        for name, tokenizer in published(options.data / "tokenizers").items()
    }
    # sentencepiece itself is the last word on LLaMA; it has no special tokens in texts.
    llama = sentencepiece.SentencePieceProcessor(model_file=str(options.data / "tokenizers/llama/tokenizer.model"))
    for text, ids in zip(texts, document["ids"]["llama"]):
        if not re.search(r"</?(s|unk)>|\x00", text):
            assert [1] + llama.encode(text) == ids, text
    document["cut_to_9"] = {
        name: [tokenizer(text, truncation=True, max_length=9)["input_ids"] for text in texts]
        for name, tokenizer in published(options.data / "tokenizers").items()
    }
    # What special tokens inside a text of LLaMA's become differs between releases of transformers, so nothing
    # is compared.
    for part in ["ids", "cut_to_9"]:
        for place, text in enumerate(texts):
            if re.search(r".</?(s|unk)>|</?(s|unk)>.", text):
                document[part]["llama"][place] = None
    if options.out:
        options.out.write_text(json.dumps(document))
        return
    options.fixtures.mkdir(parents=True, exist_ok=True)
    small = small_models(options.fixtures, captions(options.data, 4000))
    # Special tokens inside a text are text to sentencepiece and special to transformers; and T5's class
    # splits at all white space, so that texts with either are compared with transformers alone, above.
    plain = [text for text in texts if not re.search(r"<|▁|[^\S \t\n\u00a0\u3000]|\x00", text)]
    document["small_texts"] = plain
    document["small_ids"] = {name: [model.encode(text) for text in plain] for name, model in small.items()}
    (options.fixtures / "ids.json").write_text(json.dumps(document) + "\n")


main()
