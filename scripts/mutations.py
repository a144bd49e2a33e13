"""Removes every intended quirk of the metrics crate, one at a time, and checks that a test fails.

python3 scripts/mutations.py [NAME ...]     (all, or those whose name contains one of the words)

Works on a copy of the crate in a temporary folder; the crate itself stays unchanged. Prints a table: the changed behaviour,
and the first tests that failed. Exits with 1 if a change fails no test. Needs METEOR's tables (`make meteor-data`).
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The changed behaviour, the file below metrics/src, the text to replace (it must occur exactly once), and
# the new text.
MUTATIONS = [
    # tokeniser
    ("PTB: context ends with the caption", "ptb/rules.rs",
     r'rule(r"[A-Za-z]", &format!(r"\.[{{space}}\n]+(?:', r'rule(r"[A-Za-z]", &format!(r"\.[{{space}}]+(?:'),
    ("PTB: named brackets are dropped", "ptb/mod.rs", '"-LRB-", "-RRB-"', '"-lrb-", "-rrb-"'),
    ("PTB: a second period is put after etc. everywhere", "ptb/rules.rs", r'r"(?s:..)", Keep', r'r"(?s:..)", KeepPeriod'),
    ("PTB: `!!` is dropped, too", "ptb/mod.rs", '"?", "!", ",",', '"!!", "!", ",",'),
    ("PTB: other line ends are taken", "ptb/mod.rs",
     "caption.chars().find(|c| alphabet::LINE_ENDS.contains(c))", "None"),
    ("PTB: no-break spaces inside a token are plain ones", "ptb/mod.rs",
     """.replace("&amp;", "&").replace(' ', "\\u{a0}");""", """.replace("&amp;", "&");"""),
    ("words: split on Rust's white space only", "ngram.rs",
     r"c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)", "c.is_whitespace()"),
    # BLEU
    ("BLEU: of equally close lengths the longer counts", "bleu.rs",
     "(words.len().abs_diff(length), words.len())).min()",
     "(words.len().abs_diff(length), words.len())).min_by_key(|&(distance, words)| (distance, usize::MAX - words))"),
    ("BLEU: no small number under the fraction", "bleu.rs", "const SMALL: f64 = 1e-9;", "const SMALL: f64 = 1e-300;"),
    ("BLEU: no tiny number over the fraction", "bleu.rs", "const TINY: f64 = 1e-15;", "const TINY: f64 = 0.0;"),
    # ROUGE-L
    ("ROUGE-L: precision and recall of one reference", "rouge.rs",
     "        precision = precision.max(common as f64 / words.length as f64);\n"
     "        recall = recall.max(common as f64 / length as f64);\n",
     "        let (p, r) = (common as f64 / words.length as f64, common as f64 / length as f64);\n"
     "        if p * r / (p + r) > precision * recall / (precision + recall + 1e-300) {\n"
     "            (precision, recall) = (p, r);\n        }\n"),
    ("ROUGE-L: an empty caption has no word", "rouge.rs",
     "        for word in reference.split(' ') {", "        for word in reference.split(' ').filter(|word| !word.is_empty()) {"),
    ("ROUGE-L: words are split on all white space", "rouge.rs",
     "        for word in reference.split(' ') {", "        for word in reference.split(char::is_whitespace) {"),
    # CIDEr
    ("CIDEr: a repeated word counts by its logarithm", "cider.rs",
     "|&(number, count): &(u32, u32)| f64::from(count) * weights[n][number as usize]",
     "|&(number, count): &(u32, u32)| (1.0 + f64::from(count).ln()) * weights[n][number as usize]"),
    ("CIDEr: not clipped", "cider.rs", "product += ours.min(theirs) * theirs;", "product += ours * theirs;"),
    ("CIDEr: no Gaussian of the lengths", "cider.rs", "sum += product * nearness;", "sum += product + 0.0 * nearness;"),
    ("CIDEr: an n-gram no reference has weighs nothing", "grams.rs",
     "videos.ln() - f64::from(count).max(1.0).ln()",
     "if count == 0 { 0.0 } else { videos.ln() - f64::from(count).ln() }"),
    ("CIDEr: one video alone has weights", "grams.rs",
     "videos.ln() - f64::from(count).max(1.0).ln()", "(videos + 1.0).ln() - f64::from(count).max(1.0).ln()"),
    ("CIDEr: divided by the lengths the hypothesis has", "cider.rs",
     "numpy_mean(&sums) / self.nearness.len() as f64 * 10.0",
     "sums.iter().sum::<f64>() / video.hypothesis(0).len().clamp(1, 4) as f64 / self.nearness.len() as f64 * 10.0"),
    ("CIDEr: a hypothesis counts as a document", "grams.rs", "let is_reference = caption > captions[0];", "let is_reference = true;"),
    ("means: summed from left to right", "ngram.rs",
     "pairwise_sum(values) / values.len() as f64 }", "values.iter().sum::<f64>() / values.len() as f64 }"),
    # METEOR
    ("METEOR: half a match counts as one", "meteor/align.rs",
     "+ (found.hypothesis_length as f64 * weight) as u32\n            + (found.reference_length as f64 * weight) as u32;",
     "+ (found.hypothesis_length as f64 * weight).ceil() as u32\n"
     "            + (found.reference_length as f64 * weight).ceil() as u32;"),
    ("METEOR: a new match adds its distance to its own path", "meteor/align.rs",
     "path.rank_after(&found, distance));\n"
     "                // Given to the path it branches from, and so to the branches after it.\n"
     "                distance += found.distance();",
     "path.rank_after(&found, distance + found.distance()));\n                distance += 0;"),
    ("METEOR: a wider beam", "meteor/align.rs", "const BEAM: usize = 40;", "const BEAM: usize = 4000;"),
    ("METEOR: a narrower beam", "meteor/align.rs", "const BEAM: usize = 40;", "const BEAM: usize = 20;"),
    ("METEOR: nothing is settled before the search", "meteor/align.rs", "alone.then_some(only)", "(alone && false).then_some(only)"),
    ("METEOR: the search weighs as the score does", "meteor/align.rs",
     "[f64; MODULES] = [1.0, 0.5, 0.5, 0.5];", "[f64; MODULES] = [1.0, 0.6, 0.8, 0.6];"),
    ("METEOR: the last of equal references counts", "meteor/mod.rs", "score > highest", "score >= highest"),
    ("METEOR: a complete match adds its chunk", "meteor/score.rs", "if !video.is_complete() {", "if true {"),
    ("METEOR: a complete match is fragmented", "meteor/score.rs",
     "self.matches == self.lengths && self.chunks == 1", "self.matches == self.lengths && self.chunks == 0"),
    ("METEOR: the corpus is the mean of the videos", "meteor/mod.rs",
     "corpus: sum.score(),", "corpus: statistics.iter().map(|video| video.score()).sum::<f64>() / statistics.len() as f64,"),
    ("METEOR: the separator stays in the hypothesis", "meteor/sentences.rs", '.replace("|||", "")', '.replace("||||||", "")'),
    ("METEOR: the separator is cleaned from references", "meteor/sentences.rs",
     '.flat_map(|reference| reference.split("|||"))', '.flat_map(|reference| reference.split("||||||"))'),
    ("METEOR: paraphrases are looked up one way only", "meteor/mod.rs",
     "for ours in &hypothesis.phrases {", "for ours in hypothesis.phrases.iter().take(0) {"),
    ("METEOR: equal captions go through every module", "meteor/mod.rs",
     "let are_equal = hypothesis.words.iter().map(hash).eq(reference.words.iter().map(hash));",
     "let are_equal = hypothesis.words.iter().map(hash).eq(reference.words.iter().map(hash)) && reference.words.is_empty();"),
    ("METEOR: words are compared by their first letter's hash", "meteor/lexicon.rs",
     "hash.wrapping_mul(31)", "hash.wrapping_mul(37)"),
    ("METEOR: short words and those in -ss have base forms, too", "meteor/lexicon.rs",
     'if word.ends_with("ss") || word.encode_utf16().count() <= 2 {', "if word.is_empty() {"),
    ("METEOR: what is replaced may be replaced again", "meteor/normalize.rs",
     "                out.push(right);\n                place += 3;", "                place += 2;"),
    ("METEOR: abbreviations keep their periods", "meteor/normalize.rs",
     "if stem.contains('.') && stem.chars().any(is_letter) {", "if false {"),
    # reward
    ("reward: released scores the generated caption", "reward.rs",
     "Self { roles: Roles::Released,", "Self { roles: Roles::Intended,"),
    ("reward: released knows the end of a caption", "reward.rs",
     "references: ReferenceChoice::One, end_token: false }", "references: ReferenceChoice::One, end_token: true }"),
    ("reward: standard does not know the end of a caption", "reward.rs",
     "references: ReferenceChoice::All,\n            end_token: true,", "references: ReferenceChoice::All,\n            end_token: false,"),
    # files
    ("files: the first of two predictions counts", "files.rs",
     "predictions.iter().find(|(id, _)| !seen.insert(id.as_str()))", "predictions.iter().find(|(id, _)| seen.insert(id.as_str()) && false)"),
    ("files: missing ids are left out without a word", "files.rs", "if !partial && (", "if false && ("),
    ("files: MSVD's numbers are not shifted", "files.rs", '.checked_add(1)?', '.checked_add(0)?'),
    # VQA
    ("VQA: a comma between digits changes nothing else", "vqa.rs", "let comma_in_number =", "let comma_in_number = false && "),
    ("VQA: every period goes, not the first 32", "vqa.rs", "const PERIODS: usize = 32;", "const PERIODS: usize = usize::MAX;"),
    ("VQA: somebody'd stays", "vqa.rs", '("somebody\'d", "somebodyd")', '("somebody\'d", "somebody\'d")'),
]

# Which tests are to notice, by the first word of the mutation's name; the unit tests always run.
TESTS = {
    "PTB": ["golden_ptb"],
    "METEOR": ["golden_meteor"],
    "VQA": ["golden_vqa"],
    "files": [],
}


def run(workspace, target, tests):
    environment = dict(os.environ, RECAP_METEOR=str(ROOT / "cache/meteor"), CARGO_TARGET_DIR=str(target))
    # The crate's own code without optimisation: building it is most of the time here.
    environment.setdefault("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
    environment.setdefault("CARGO_PROFILE_DEV_DEBUG", "false")
    environment.setdefault("PROPTEST_CASES", "16")
    command = ["cargo", "test", "--offline", "--no-fail-fast", "-p", "metrics", "--lib"]
    command += [word for test in tests for word in ("--test", test)]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)
    failed = re.findall(r"^test (\S+) \.\.\. FAILED$", done.stdout, re.MULTILINE)
    built = "test result" in done.stdout
    return built, failed, done.stderr


def main():
    words = sys.argv[1:]
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation[0] for word in words)]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target/mutations"))
    with tempfile.TemporaryDirectory() as folder:
        workspace = pathlib.Path(folder)
        shutil.copytree(ROOT / "metrics", workspace / "metrics")
        shutil.copy(ROOT / "Cargo.lock", workspace)
        manifest = (ROOT / "Cargo.toml").read_text()
        (workspace / "Cargo.toml").write_text(re.sub(r"(?m)^members = .*$", 'members = ["metrics"]', manifest))
        built, failed, errors = run(workspace, target, ["golden_meteor", "golden_ptb", "golden_scores", "golden_vqa"])
        if not built or failed:
            sys.exit(f"the crate as it is does not pass its tests: {failed}\n{errors[-2000:]}")
        print("| changed behaviour | tests that fail |\n|---|---|", flush=True)
        survivors = 0
        for name, file, old, new in chosen:
            path = workspace / "metrics/src" / file
            text = path.read_text()
            if text.count(old) != 1:
                sys.exit(f"{name}: the text to be replaced is in {file} {text.count(old)} times, expected once:\n{old}")
            path.write_text(text.replace(old, new))
            built, failed, errors = run(workspace, target, TESTS.get(name.split(":")[0], ["golden_scores"]))
            path.write_text(text)
            if not built:
                sys.exit(f"{name}: the changed crate does not build:\n{errors[-2000:]}")
            names = [f"`{test.rsplit('::', 1)[-1]}`" for test in failed]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            print(f"| {name} | {', '.join(names[:4]) + more or 'NONE'} |", flush=True)
            survivors += not failed
        sys.exit(f"{survivors} of {len(chosen)} fail no test" if survivors else 0)


main()
