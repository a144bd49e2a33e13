"""Times pycocoevalcap on predictions and references, part by part; prints the scores as JSON and the seconds on stderr.

python3 pycocoevalcap_suite.py PREDICTIONS REFERENCES   (PREDICTIONS: id -> caption; REFERENCES: MSR-VTT's videodatainfo, zipped)
"""

import gzip
import json
import sys
import time
import zipfile

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

predictions_path, references_path = sys.argv[1:]
start = time.time()
predictions = json.load(gzip.open(predictions_path, "rt", encoding="utf-8"))
archive = zipfile.ZipFile(references_path)
(name,) = [name for name in archive.namelist() if name.endswith(".json")]
references = {}
for sentence in json.load(archive.open(name))["sentences"]:
    references.setdefault(sentence["video_id"], []).append({"caption": sentence["caption"]})
hypotheses = {video: [{"caption": predictions[video]}] for video in references}
seconds = {"read": time.time() - start}


def timed(part, work):
    begin = time.time()
    result = work()
    seconds[part] = time.time() - begin
    return result


tokenizer = PTBTokenizer()
references, hypotheses = timed("ptb", lambda: (tokenizer.tokenize(references), tokenizer.tokenize(hypotheses)))
scores = dict(zip(["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"], timed("bleu", lambda: Bleu(4).compute_score(references, hypotheses, verbose=0)[0])))
scores["METEOR"] = timed("meteor", lambda: Meteor().compute_score(references, hypotheses)[0])
scores["ROUGE_L"] = float(timed("rouge_l", lambda: Rouge().compute_score(references, hypotheses)[0]))
scores["CIDEr"] = float(timed("cider", lambda: Cider().compute_score(references, hypotheses)[0]))
seconds["total"] = time.time() - start
print(json.dumps(scores))
print(" ".join(f"{part} {value:.2f} s" for part, value in seconds.items()), file=sys.stderr)
