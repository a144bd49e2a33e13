"""Makes metrics/tests/data/vqa_3000.jsonl: answers and what the VQA challenge's evaluation makes of them.

    pip download --no-deps salesforce-lavis==1.0.2 && unzip salesforce_lavis-1.0.2-py3-none-any.whl 'lavis/common/vqa_tools/*'
    python3 scripts/reference/vqa_answers.py lavis/common/vqa_tools/vqa_eval.py > metrics/tests/data/vqa_3000.jsonl

LAVIS carries the challenge's own code. Each line is [answer, normalised]; the answers are made of the code's own tables,
of words, marks and numbers, with a fixed seed.
"""

import importlib.util
import json
import random
import sys
import warnings

warnings.simplefilter("ignore")
spec = importlib.util.spec_from_file_location("vqa_eval", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
evaluation = module.VQAEval()

WORDS = ["a", "an", "the", "The", "A", "dog", "Guitar", "playing", "man", "T-shirt", "don't", "it's", "NONE", "Ten", "yes", "no"]
MARKS = list(";/[]\"{}()=+\\_-><@`,?!.':$%&*#|~^") + ["...", "--", " - ", ", ", ". "]
NUMBERS = ["1", "10,000", "3.5", ".5", "5.", "1,2", "12:30", "٣", "٣,٤", "2.٣", "½", "1/2"]
OTHERS = ["é", "ÉCOLE", "ΟΔΟΣ", "İ", "\u00a0", "\u3000", "\n", "\t", "\x1c", "中", "😀", "“x”"]

random.seed(20261122)
tables = list(evaluation.contractions) + list(evaluation.contractions.values()) + list(evaluation.manualMap)


def answer():
    pieces = []
    for _ in range(random.randint(0, 6)):
        pieces.append(random.choice(random.choice([WORDS, WORDS, tables, MARKS, NUMBERS, OTHERS])))
        pieces.append(random.choice(["", " ", " ", "  "]))
    return "".join(pieces)


def normalised(text):
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return evaluation.processDigitArticle(evaluation.processPunctuation(text))


answers = list(tables) + ["." * 40, "a." * 40, "10,000 a-b c/d", "a-b c/d", "a- b-c"]
answers += [answer() for _ in range(3000 - len(answers))]
for text in answers:
    print(json.dumps([text, normalised(text)], ensure_ascii=False))
