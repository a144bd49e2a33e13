"""Converts document frequencies between the pickles that self-critical training shares and our JSON.

python3 scripts/document_frequencies.py coco-train-words.p df.json     (pickle to JSON)
python3 scripts/document_frequencies.py df.json df.p                   (JSON to pickle)

The pickle is {'document_frequency': {tuple of words: count}, 'ref_len': number of documents}. Only open pickles you trust: reading
one runs what is in it.
"""

import json
import pickle
import sys
from collections import defaultdict

source, target = sys.argv[1:]
if source.endswith(".json"):
    with open(source, encoding="utf-8") as file:
        table = json.load(file)
    counts = defaultdict(float)
    counts.update({tuple(gram.split(" ")): count for gram, count in table["document_frequency"].items()})
    with open(target, "wb") as file:
        pickle.dump({"document_frequency": counts, "ref_len": table["ref_len"]}, file)
else:
    with open(source, "rb") as file:
        table = pickle.load(file, encoding="latin1")
    counts = {" ".join(gram): float(count) for gram, count in table["document_frequency"].items()}
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"ref_len": float(table["ref_len"]), "document_frequency": counts}, file, ensure_ascii=False)
print(f"{target}: {len(counts)} n-grams of {table['ref_len']} documents")
