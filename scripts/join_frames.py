"""Joins the four frames of each MSR-VTT test video in FOLDER to a clip, JPEGs as they are, and writes captions.json beside
them: of five clips one is for the test and one for validation. Needs gstreamer1.0-tools.

    python scripts/join_frames.py FOLDER OUT
"""
import json, subprocess, sys
from pathlib import Path
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
rows = []
for number, video in enumerate(json.loads((source / "captions.json").read_text())):
    name = video["video_id"]
    clip = out / f"{name}.avi"
    if not clip.exists():
        subprocess.run(["gst-launch-1.0", "-q", "multifilesrc", f"location={source}/{name}_%d.jpg",
                        "caps=image/jpeg,framerate=1/1", "!", "avimux", "!", "filesink", f"location={clip}"], check=True, stderr=subprocess.DEVNULL)
    split = {4: "test", 3: "validate"}.get(number % 5, "train")
    rows.append({"video": clip.name, "caption": video["captions"], "split": split})
(out / "captions.json").write_text(json.dumps(rows, indent=1))
