"""Compares our reader with FFmpeg on files that the ffmpeg program makes: codecs, pixel formats, ranges and matrices
(`colour`), and streams that were cut without encoding them again (`cuts`).

    apt-get install ffmpeg
    cargo build --workspace --example frame_means
    python3 scripts/reference/video_matrix.py colour target/debug/examples/frame_means [FOLDER [WORD]]
    python3 scripts/reference/video_matrix.py cuts target/debug/examples/frame_means [FOLDER [WORD]]

Prints one line for each file that differs: another number of frames, a mean red, green or blue that is more than 3 away
from that of `ffmpeg -pix_fmt rgb24`, or an error (`refused`, with its message). A last line counts them. With a WORD, only
the files whose names contain it are made and compared. With PyAV installed (`pip install av numpy`), its pictures
(`to_ndarray(format="rgb24")`) are compared with those of the ffmpeg program too.
"""

import json
import subprocess
import sys
from pathlib import Path

LIMIT = 3.0
FRAMES = 6
PICTURE = "testsrc2=size={size}:rate=10:duration=0.6,hue=h=20*t:s=1.2,eq=brightness=0.1"

# A codec: arguments of its encoder, extension of its file, and its pixel formats.
FFV1 = (
    "gray gray10le gray12le gray16le ya8 yuv410p yuv411p yuv420p yuv422p yuv440p yuv444p yuv420p9le yuv420p10le "
    "yuv420p12le yuv420p14le yuv420p16le yuv422p9le yuv422p10le yuv422p12le yuv422p14le yuv422p16le yuv440p10le "
    "yuv440p12le yuv444p9le yuv444p10le yuv444p12le yuv444p14le yuv444p16le yuva420p yuva422p yuva444p yuva420p10le "
    "yuva422p10le yuva444p10le yuva444p16le bgr0 bgra gbrp9le gbrp10le gbrp12le gbrp14le gbrp16le gbrap10le gbrap12le "
    "gbrap16le rgb48le rgba64le"
)
X264 = "yuv420p yuvj420p yuv422p yuvj422p yuv444p yuvj444p gray yuv420p10le yuv422p10le yuv444p10le gray10le nv12"
X265 = (
    "yuv420p yuvj420p yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le yuv420p12le yuv422p12le yuv444p12le gray "
    "gray10le gray12le gbrp gbrp10le gbrp12le"
)
AOM = "yuv420p yuv422p yuv444p yuv420p10le yuv422p10le yuv444p10le yuv420p12le yuv444p12le gray gray10le gray12le gbrp gbrp10le gbrp12le"
VPX = "yuv420p yuv422p yuv440p yuv444p yuv420p10le yuv422p10le yuv440p10le yuv444p10le yuv420p12le yuv444p12le gbrp gbrp10le gbrp12le"
HUFF = (
    "yuv422p yuv444p yuv411p yuv410p yuv440p yuv420p gbrp gbrp10le gbrp12le gbrp14le gbrp16le gray gray16le yuva420p "
    "yuva422p yuva444p gbrap yuv420p9le yuv420p10le yuv420p12le yuv422p10le yuv444p12le yuv444p16le rgb24 bgra"
)
CODECS = {
    "ffv1": ("-c:v ffv1 -level 3", "mkv avi", FFV1),
    "h264": ("-c:v libx264 -preset veryfast -qp 8", "mp4 mkv avi ts", X264),
    "h264rgb": ("-c:v libx264rgb -preset veryfast -qp 8", "mp4 mkv", "rgb24 bgr24"),
    "hevc": ("-c:v libx265 -preset veryfast -x265-params log-level=none:qp=8", "mp4 mkv ts", X265),
    "av1": ("-c:v libaom-av1 -cpu-used 8 -crf 10", "mp4 mkv", AOM),
    "vp9": ("-c:v libvpx-vp9 -cpu-used 8 -crf 10 -b:v 0", "webm mp4", VPX),
    "vp8": ("-c:v libvpx -cpu-used 8 -b:v 2M", "webm", "yuv420p"),
    "png": ("-c:v png", "mov mkv", "rgb24 rgba rgb48be rgba64be gray gray16be ya8 ya16be monob pal8"),
    "qtrle": ("-c:v qtrle", "mov", "rgb24 argb rgb555be gray"),
    "prores": ("-c:v prores_ks", "mov", "yuv422p10le yuv444p10le yuva444p10le"),
    "mjpeg": ("-c:v mjpeg -q:v 2", "avi mov mkv", "yuvj420p yuvj422p yuvj444p"),
    "mjpeg-limited": ("-c:v mjpeg -q:v 2 -strict unofficial", "avi mov", "yuv420p yuv422p yuv444p"),
    "huffyuv": ("-c:v huffyuv", "avi mkv", "yuv422p rgb24 bgra"),
    "ffvhuff": ("-c:v ffvhuff", "avi mkv", HUFF),
    "utvideo": ("-c:v utvideo", "avi mkv", "yuv420p yuv422p yuv444p gbrp gbrap"),
    "magicyuv": ("-c:v magicyuv", "avi mkv", "yuv420p yuv422p yuv444p yuva444p gbrp gbrap gray"),
    "dnxhr": ("-c:v dnxhd -profile:v dnxhr_hq", "mov mkv", "yuv422p"),
    "dnxhr444": ("-c:v dnxhd -profile:v dnxhr_444", "mov", "yuv444p10le gbrp10le"),
    "dnxhrhqx": ("-c:v dnxhd -profile:v dnxhr_hqx", "mov", "yuv422p10le"),
    "mpeg1": ("-c:v mpeg1video -r 25 -q:v 2", "mpg mkv", "yuv420p"),
    "mpeg2": ("-c:v mpeg2video -q:v 2", "mpg mkv mp4 ts", "yuv420p yuv422p"),
    "mpeg4": ("-c:v mpeg4 -q:v 2", "mp4 avi mkv", "yuv420p"),
    "rawvideo": (
        "-c:v rawvideo",
        "avi mkv mov",
        "yuv420p yuyv422 uyvy422 rgb24 bgr24 bgra gray gray16le yuv444p yuv422p rgb555le rgb565le pal8 nv12 rgb48be",
    ),
    "v210": ("-c:v v210", "mov avi", "yuv422p10le"),
    "v308": ("-c:v v308", "mov", "yuv444p"),
    "v408": ("-c:v v408", "mov", "yuva444p"),
    "v410": ("-c:v v410", "mov avi", "yuv444p10le"),
    "r210": ("-c:v r210", "mov", "gbrp10le"),
    "cfhd": ("-c:v cfhd", "mov", "yuv422p10le gbrp12le gbrap12le"),
    "jpeg2000": ("-c:v jpeg2000", "mov mkv", "rgb24 gray yuv420p yuv444p gray16le rgb48le yuv420p10le"),
    "theora": ("-c:v libtheora -q:v 8", "ogv mkv", "yuv420p yuv422p yuv444p"),
    "dv": ("-c:v dvvideo -s 720x576 -r 25", "avi mov", "yuv420p"),
    "wmv2": ("-c:v wmv2 -q:v 2", "asf avi", "yuv420p"),
    "msmpeg4": ("-c:v msmpeg4 -q:v 2", "avi", "yuv420p"),
    "flv1": ("-c:v flv1 -q:v 2", "flv", "yuv420p"),
    "flashsv": ("-c:v flashsv", "flv", "bgr24"),
    "zlib": ("-c:v zlib", "avi", "bgr24"),
    "zmbv": ("-c:v zmbv", "avi", "pal8 rgb555le rgb565le bgr0"),
    "cinepak": ("-c:v cinepak", "avi mov", "rgb24"),
    "svq1": ("-c:v svq1", "mov", "yuv410p"),
    "msvideo1": ("-c:v msvideo1", "avi", "rgb555le"),
    "hap": ("-c:v hap", "mov", "rgba"),
    "snow": ("-c:v snow -strict -2", "avi", "yuv420p gray yuv444p"),
    "ljpeg": ("-c:v ljpeg -strict unofficial", "avi", "bgr24 yuvj420p yuvj444p"),
}

# Matrices and ranges, written into files of the common codecs in a small and in an HD size.
TAGGED = {
    "h264": ("-c:v libx264 -preset veryfast -qp 8", "mp4 mkv avi ts", "yuv420p yuv444p"),
    "hevc": ("-c:v libx265 -preset veryfast -x265-params log-level=none:qp=8", "mp4", "yuv420p yuv420p10le"),
    "av1": ("-c:v libaom-av1 -cpu-used 8 -crf 10", "mp4", "yuv420p yuv420p10le"),
    "vp9": ("-c:v libvpx-vp9 -cpu-used 8 -crf 10 -b:v 0", "webm mp4", "yuv420p"),
    "vp8": ("-c:v libvpx -cpu-used 8 -b:v 2M", "webm", "yuv420p"),
    "mpeg2": ("-c:v mpeg2video -q:v 2", "ts mp4", "yuv420p"),
    "mpeg4": ("-c:v mpeg4 -q:v 2", "mp4 avi", "yuv420p"),
    "prores": ("-c:v prores_ks", "mov", "yuv422p10le"),
    "ffv1": ("-c:v ffv1 -level 3", "mkv", "yuv420p yuv444p16le yuv422p10le"),
    "mjpeg": ("-c:v mjpeg -q:v 2", "avi mov", "yuvj420p"),
    "rawvideo": ("-c:v rawvideo", "avi mov", "yuv420p uyvy422"),
    "theora": ("-c:v libtheora -q:v 8", "ogv", "yuv420p"),
    "dnxhr": ("-c:v dnxhd -profile:v dnxhr_hq", "mov", "yuv422p"),
}
MATRICES = ["bt709", "smpte170m", "bt470bg", "bt2020nc", "smpte240m", "fcc", "none"]
SIZES = ["128x96", "1280x720"]


def colour_commands(folder):
    """Each file with the command that makes it."""
    for codec, (encoder, extensions, formats) in CODECS.items():
        for extension in extensions.split():
            for pixels in formats.split():
                source = PICTURE.format(size="256x128" if "dnx" in codec else "128x96")
                path = folder / f"{codec}-{pixels}.{extension}"
                yield path, ["-f", "lavfi", "-i", source, "-pix_fmt", pixels, *encoder.split()]
    for codec, (encoder, extensions, formats) in TAGGED.items():
        for extension in extensions.split():
            for pixels in formats.split():
                for size in SIZES:
                    for matrix in MATRICES:
                        for spread in ["tv", "pc"]:
                            if size == "1280x720" and (spread == "pc" or matrix not in ["bt709", "none", "smpte170m"]):
                                continue
                            source = PICTURE.format(size=size)
                            tags = [] if matrix == "none" else ["-colorspace", matrix]
                            name = f"tag-{codec}-{pixels}-{matrix}-{spread}-{size}.{extension}"
                            if size == "1280x720":
                                source = source.replace("duration=0.6", "duration=0.2")
                            options = ["-f", "lavfi", "-i", source, "-vf", f"scale=out_range={spread}:flags=bicubic"]
                            yield folder / name, [*options, "-pix_fmt", pixels, *encoder.split(), *tags, "-color_range", spread]


def make(path, options):
    """Makes a file unless it exists; whether it does now."""
    if path.exists():
        return path.stat().st_size > 0
    command = ["ffmpeg", "-v", "error", "-y", *options, "-threads", "1", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0 or not path.exists() or path.stat().st_size == 0:
        path.write_bytes(b"")  # not tried again
        return False
    return True


def size_of(path):
    """Columns and rows, as ffprobe sees them."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height,pix_fmt", "-of", "json"]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
    streams = json.loads(done.stdout).get("streams", []) if done.returncode == 0 else []
    return (streams[0]["width"], streams[0]["height"], streams[0].get("pix_fmt")) if streams else (0, 0, None)


def truth(path):
    """Pixel format and mean red, green, blue of each frame by the ffmpeg program; kept next to the file."""
    kept = path.with_name(path.name + ".json")
    if kept.exists():
        return json.loads(kept.read_text())
    width, height, pixels = size_of(path)
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), "-map", "v:0", "-vsync", "passthrough"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True).stdout
    frame = width * height * 3
    frames = [raw[at : at + frame] for at in range(0, len(raw) - frame + 1, frame)] if frame else []
    means = [[sum(part[c::3]) * 3 / frame for c in range(3)] for part in frames]
    found = {"pixels": pixels, "means": means}
    kept.write_text(json.dumps(found))
    return found


def pyav(path):
    """The same by PyAV; None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as file:
            return [frame.to_ndarray(format="rgb24").mean((0, 1)).tolist() for frame in file.decode(video=0)]
    except Exception as error:  # what PyAV refuses is only reported
        return str(error)


def ours(program, paths):
    """What the example `frame_means` prints of each file. A file on which it dies is reported as such."""
    found = {}
    rest = [str(path) for path in paths]
    while rest:
        done = subprocess.run([program, *rest], capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found |= {line["file"]: line for line in lines}
        if done.returncode == 0:
            break
        found[rest[len(lines)]] = {"error": f"DIED with {done.returncode}", "died": True}
        rest = rest[len(lines) + 1 :]
    return found


def distance(a, b):
    """The largest difference of a mean."""
    return max((abs(x - y) for one, two in zip(a, b) for x, y in zip(one, two)), default=0.0)


def compare(program, paths):
    """Prints the table."""
    found = ours(program, paths)
    counts = {}
    for path in paths:
        expected = truth(path)
        got = found.get(str(path), {"error": "no answer"})
        means = got.get("means")
        if got.get("died"):
            verdict, detail = "DIED", got["error"]
        elif means is None:
            verdict, detail = "refused", got["error"].replace(str(path), "")
        elif len(means) != len(expected["means"]):
            verdict, detail = "FRAMES", f"{len(means)} for {len(expected['means'])}; {got['probe']['error']}"
        elif (far := distance(means, expected["means"])) > LIMIT:
            first = [[round(v) for v in side[0]] for side in (means, expected["means"])]
            verdict, detail = "COLOUR", f"{far:.1f} away, first {first[0]} for {first[1]}"
        else:
            verdict, detail = "equal", f"{far:.1f}"
        their = pyav(path)
        if isinstance(their, list) and (len(their) != len(expected["means"]) or distance(their, expected["means"]) > 1.5):
            detail += f"; PyAV differs from ffmpeg: {len(their)} frames, {distance(their, expected['means']):.1f} away"
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict != "equal" or "PyAV" in detail:
            print(f"{verdict:8} {path.name:45} {expected['pixels'] or '':14} {detail}")
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())), f"of {len(paths)}")


CUT_CODECS = {
    "h264": ("-c:v libx264 -preset medium -x264-params open-gop=1:keyint=12:min-keyint=6:bframes=3:scenecut=0", "mp4 mkv ts avi"),
    "h264-b1": ("-c:v libx264 -preset medium -x264-params open-gop=1:keyint=10:min-keyint=10:bframes=1:scenecut=0", "mp4 mkv ts avi"),
    "h264-closed": ("-c:v libx264 -preset medium -x264-params keyint=12:min-keyint=12:bframes=3:scenecut=0", "mp4 mkv ts avi"),
    "h264-pyramid": ("-c:v libx264 -preset medium -x264-params open-gop=1:keyint=20:min-keyint=10:bframes=7:b-pyramid=normal:b-adapt=0:ref=5:scenecut=0", "mp4 mkv ts"),
    "h264-refresh": ("-c:v libx264 -preset medium -x264-params intra-refresh=1:keyint=10:bframes=0:scenecut=0", "mp4 mkv ts"),
    "h264-field": ("-c:v libx264 -preset medium -flags +ilme+ildct -x264-params open-gop=1:keyint=12:min-keyint=6:bframes=2:scenecut=0:tff=1", "mp4 mkv ts"),
    "hevc": ("-c:v libx265 -preset fast -x265-params log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0", "mp4 mkv ts"),
    "hevc-closed": ("-c:v libx265 -preset fast -x265-params log-level=none:open-gop=0:keyint=12:min-keyint=12:bframes=3:scenecut=0", "mp4 mkv ts"),
    "hevc-refresh": ("-c:v libx265 -preset fast -x265-params log-level=none:intra-refresh=1:keyint=10:bframes=0:scenecut=0", "mp4 mkv ts"),
    "mpeg2": ("-c:v mpeg2video -bf 2 -g 12 -q:v 3", "mp4 mkv ts avi"),
    "mpeg2-closed": ("-c:v mpeg2video -bf 2 -g 12 -q:v 3 -flags +cgop -sc_threshold 1000000000", "mp4 mkv ts"),
    "mpeg4": ("-c:v mpeg4 -bf 2 -g 12 -q:v 3", "mp4 mkv avi"),
}
CUTS = ["-ss 0.9 -t 1", "-ss 1.3 -t 0.8", "-ss 0 -t 0.93", "-ss 0.55", "-ss 1.7 -t 0.5"]
MOVING = "testsrc2=size=128x96:rate=25:duration=3,hue=h=20*t"


def cut_files(folder, word):
    """Cuts of each codec's stream in each container, from one encoding per codec."""
    for codec, (encoder, extensions) in CUT_CODECS.items():
        for extension in extensions.split():
            whole = folder / f"whole-{codec}.{extension}"
            if word not in whole.name:
                continue
            if not make(whole, ["-f", "lavfi", "-i", MOVING, "-pix_fmt", "yuv420p", *encoder.split()]):
                continue
            yield whole
            for index, times in enumerate(CUTS):
                path = folder / f"cut{index}-{codec}.{extension}"
                if make(path, [*times.split(), "-i", str(whole), "-c", "copy"]):
                    yield path
            glued = folder / f"glued-{codec}.{extension}"
            parts = folder / f"glued-{codec}.{extension}.txt"
            names = [f"cut{index}-{codec}.{extension}" for index in (1, 0, 4)]
            parts.write_text("".join(f"file {name}\n" for name in names))
            if make(glued, ["-f", "concat", "-safe", "0", "-i", str(parts), "-c", "copy"]):
                yield glued


def main():
    what, program = sys.argv[1:3]
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else "cache/video-matrix")
    word = sys.argv[4] if len(sys.argv) > 4 else ""
    folder.mkdir(parents=True, exist_ok=True)
    if what == "colour":
        made = [(path, make(path, options)) for path, options in colour_commands(folder) if word in path.name]
        print(f"{sum(not done for _, done in made)} files could not be made")
        compare(program, [path for path, done in made if done])
    else:
        compare(program, list(cut_files(folder, word)))


if __name__ == "__main__":
    main()
