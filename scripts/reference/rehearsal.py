"""What scripts/rehearse.sh needs besides the program: a small data set, the list of runs, and the table of results.

    python scripts/reference/rehearsal.py data SHARED OUT      # four clips as MSR-VTT and MSRVTT-QA, with own splits
    python scripts/reference/rehearsal.py variants PLAN.json   # a line for each variant: name, stages, bytes of memory
    python scripts/reference/rehearsal.py record ...           # one line of the results, see `record`
    python scripts/reference/rehearsal.py table RESULTS.jsonl  # docs/results/rehearsal.md's tables
"""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

SPLITS = {"video231": "train", "video1781": "train", "video6415": "validate", "video7011": "test"}
QUESTIONS = {
    "video231": ("what is shown?", "game"),
    "video1781": ("who is talking?", "man"),
    "video6415": ("what is shown?", "food"),
    "video7011": ("what is a person doing?", "talk"),
}


def data(shared, out):
    """MSR-VTT's clips and captions of four ids; the questions are ours."""
    captions = {}
    for file in sorted((shared / "annotations/msrvtt").glob("*.zip")):
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                if member.endswith("videodatainfo.json"):
                    for sentence in json.loads(archive.read(member))["sentences"]:
                        captions.setdefault(sentence["video_id"], []).append(sentence["caption"])
    for name in ("msrvtt", "msrvtt-qa"):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for clip in (shared / "clips").iterdir():
            found = re.search(r"(video\d+)\.mp4$", clip.name)
            if found and found[1] in SPLITS:
                shutil.copyfile(clip, folder / f"{found[1]}.mp4")
    videos = [{"video_id": video, "split": split, "id": index} for index, (video, split) in enumerate(SPLITS.items())]
    sentences = [{"video_id": video, "caption": text} for video in SPLITS for text in captions[video]]
    sentences = [sentence | {"sen_id": index} for index, sentence in enumerate(sentences)]
    document = {"videos": videos, "sentences": sentences}
    (out / "msrvtt/train_val_videodatainfo.json").write_text(json.dumps(document))
    for split, file in {"train": "train", "validate": "val", "test": "test"}.items():
        asked = [
            {"id": index, "video_id": int(video.removeprefix("video")), "category_id": 0, "question": q, "answer": a}
            for index, (video, (q, a)) in enumerate(QUESTIONS.items())
            if SPLITS[video] == split
        ]
        (out / f"msrvtt-qa/{file}_qa.json").write_text(json.dumps(asked))


def variants(plan):
    for variant in json.loads(plan.read_text()):
        stages = ",".join(stage["name"] for stage in variant["stages"])
        print(variant["variant"], stages, max(stage["total"] for stage in variant["stages"]))


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


def record(study, name, plan, run, note, peak_log):
    """One line: the plan of a variant, and what its run took, or why it did not run."""
    own = next(variant for variant in json.loads(plan.read_text()) if variant["variant"] == name)
    line = {"study": study, "variant": name, "note": note}
    line["planned_memory"] = max(stage["total"] for stage in own["stages"])
    line["planned_disk"] = own["disk"]["best"] + own["disk"]["states"]
    line["parts"] = max(own["stages"], key=lambda stage: stage["total"])
    timing = run / "timing.json"
    if timing.is_file():
        timing = json.loads(timing.read_text())
        result = json.loads((run / "result.json").read_text())
        peaks = [int(found) * 1024 for found in re.findall(r"Maximum resident set size \(kbytes\): (\d+)", peak_log.read_text())]
        line["memory"] = max([timing["peak_memory"], *peaks])
        line["seconds"] = timing["seconds"]
        folders = [run / "best", run / "checkpoints", run / "cross_entropy"]
        line["disk"] = sum(map(size, folders))
        line["steps"] = len(result["history"])
        line["trained"], line["expected_trained"] = result["trainable"], own["trained"]
    print(json.dumps(line))


def gigabytes(count):
    return f"{count / 1e9:.2f} GB"


def ratio(measured, planned):
    return f"{100 * (measured / planned - 1):+.1f} %"


def table(results):
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    columns = ["study, variant", "memory, `show`", "measured", "", "disk, `show`", "measured", "", "minutes", ""]
    print("| " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * 7 + " --- |")
    for line in lines:
        row = [f"{line['study']}, {line['variant']}", gigabytes(line["planned_memory"])]
        if "memory" in line:
            row += [gigabytes(line["memory"]), ratio(line["memory"], line["planned_memory"])]
            # a copied run has no states
            disk = [] if "equal run" in line["note"] else [gigabytes(line["disk"]), ratio(line["disk"], line["planned_disk"])]
            row += [gigabytes(line["planned_disk"]), *(disk or ["", ""])]
            row += [f"{line['seconds'] / 60:.1f}", line["note"]]
        else:
            row += ["", "", gigabytes(line["planned_disk"]), "", "", "", line["note"]]
        print("| " + " | ".join(row) + " |")


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    command, *given = sys.argv[1:]
    if command == "data":
        data(*map(Path, given))
    elif command == "variants":
        variants(Path(given[0]))
    elif command == "record":
        study, name, plan, run, note, peak_log = given
        record(study, name, Path(plan), Path(run), note, Path(peak_log))
    elif command == "table":
        table(Path(given[0]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
