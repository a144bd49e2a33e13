"""Makes the clips in data/tests/fixtures/video, a few kB each, and truth.json: what the ffmpeg program decodes from them
(pixel format, and each frame's mean red, green, blue). Their names begin with the class of input that they stand for.

    apt-get install ffmpeg        # made with 5.1.9
    python3 scripts/reference/video_fixtures.py
"""

import json
import subprocess
from pathlib import Path

from video_matrix import make, truth

FOLDER = Path(__file__).parents[2] / "data/tests/fixtures/video"
MOVING = "testsrc2=size={size}:rate=10:duration={seconds},hue=h=20*t:s=1.2,eq=brightness=0.1"
X264 = "-c:v libx264 -preset veryfast -qp 30 -x264-params "
X265 = "-c:v libx265 -preset veryfast -x265-params log-level=none:info=0:"

# name, picture size, seconds, pixel format, encoder
CLIPS = [
    # monochrome
    ("gray-h264.mp4", "64x48", 0.3, "gray", X264 + "keyint=9"),
    ("gray-h264-10.mp4", "64x48", 0.3, "gray10le", X264 + "keyint=9"),
    ("gray-hevc.mp4", "64x48", 0.3, "gray", X265 + "qp=24"),
    ("gray-av1.mkv", "64x48", 0.3, "gray", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("gray-av1-128.mkv", "128x48", 0.3, "gray", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("gray-av1-10.mp4", "64x48", 0.3, "gray10le", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("gray-ffv1-16.mkv", "32x24", 0.2, "gray16le", "-c:v ffv1"),
    ("gray-png-16.mov", "32x24", 0.2, "gray16be", "-c:v png"),
    # pixel formats without a name in GStreamer
    ("unknown-ffv1-gray12le.mkv", "32x24", 0.2, "gray12le", "-c:v ffv1"),
    ("unknown-ffv1-gbrp16le.mkv", "32x24", 0.2, "gbrp16le", "-c:v ffv1"),
    ("unknown-ffv1-yuv440p10le.mkv", "32x24", 0.2, "yuv440p10le", "-c:v ffv1"),
    ("unknown-ffv1-yuva444p.mkv", "32x24", 0.2, "yuva444p", "-c:v ffv1"),
    ("unknown-ffv1-ya8.mkv", "32x24", 0.2, "ya8", "-c:v ffv1"),
    ("unknown-ffv1-yuv420p9le.mkv", "32x24", 0.2, "yuv420p9le", "-c:v ffv1"),
    ("unknown-hevc-gray10le.mp4", "64x48", 0.3, "gray10le", X265 + "qp=24"),
    ("unknown-hevc-gray12le.mp4", "64x48", 0.3, "gray12le", X265 + "qp=24"),
    # RGB
    ("rgb-h264.mp4", "64x48", 0.3, "rgb24", "-c:v libx264rgb -preset veryfast -qp 24"),
    ("rgb-hevc-10.mp4", "64x48", 0.3, "gbrp10le", X265 + "qp=24"),
    ("rgb-av1.mp4", "64x48", 0.3, "gbrp", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("rgb-av1-10.mkv", "64x48", 0.3, "gbrp10le", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("rgb-vp9.webm", "64x48", 0.3, "gbrp", "-c:v libvpx-vp9 -cpu-used 8 -crf 30 -b:v 0"),
    ("rgb-ffv1.mkv", "32x24", 0.2, "bgr0", "-c:v ffv1"),
    ("rgb-ffv1-12.mkv", "32x24", 0.2, "gbrp12le", "-c:v ffv1"),
    ("rgb-png.mov", "32x24", 0.2, "rgb24", "-c:v png"),
    ("rgb-png-alpha.mov", "32x24", 0.2, "rgba", "-c:v png"),
    ("rgb-qtrle.mov", "32x24", 0.2, "rgb24", "-c:v qtrle"),
    ("rgb-qtrle-alpha.mov", "32x24", 0.2, "argb", "-c:v qtrle"),
    # depths, chroma and alpha
    ("depth-h264-10.mp4", "64x48", 0.3, "yuv422p10le", X264 + "keyint=9"),
    ("depth-jpeg2000.mov", "64x48", 0.1, "yuv444p", "-c:v jpeg2000"),
    ("depth-hevc-12.mp4", "64x48", 0.3, "yuv444p12le", X265 + "qp=24"),
    ("depth-av1-12.mp4", "64x48", 0.3, "yuv444p12le", "-c:v libaom-av1 -cpu-used 8 -crf 30"),
    ("unknown-vp9-yuv440p.webm", "64x48", 0.3, "yuv440p", "-c:v libvpx-vp9 -cpu-used 8 -crf 30 -b:v 0"),
    ("depth-vp8-alpha.webm", "64x48", 0.3, "yuva420p", "-c:v libvpx -cpu-used 8 -b:v 100k -auto-alt-ref 0"),
    ("depth-vp9-alpha.webm", "64x48", 0.3, "yuva420p", "-c:v libvpx-vp9 -cpu-used 8 -crf 30 -b:v 0"),
    ("depth-prores-alpha.mov", "32x24", 0.2, "yuva444p10le", "-c:v prores_ks"),
    ("depth-ffv1-410.mkv", "32x24", 0.2, "yuv410p", "-c:v ffv1"),
    ("depth-ffv1-411.mkv", "32x24", 0.2, "yuv411p", "-c:v ffv1"),
    ("depth-ffv1-alpha.mkv", "32x24", 0.2, "yuva420p", "-c:v ffv1"),
    # matrices and ranges
    ("matrix-h264-none-hd.mp4", "1280x720", 0.1, "yuv420p", X264 + "keyint=9"),
    ("matrix-h264-bt709-hd.mp4", "1280x720", 0.1, "yuv420p", X264 + "keyint=9:colormatrix=bt709"),
    ("matrix-hevc-bt2020.mp4", "64x48", 0.3, "yuv420p10le", X265 + "qp=24:colormatrix=bt2020nc"),
    ("matrix-h264-smpte240m.mkv", "64x48", 0.3, "yuv420p", X264 + "keyint=9:colormatrix=smpte240m"),
    ("matrix-vp8-bt709.webm", "64x48", 0.3, "yuv420p", "-c:v libvpx -cpu-used 8 -b:v 100k -colorspace bt709"),
    ("matrix-vp9-bt709.mp4", "64x48", 0.3, "yuv420p", "-c:v libvpx-vp9 -cpu-used 8 -crf 30 -b:v 0 -colorspace bt709"),
    ("range-h264-full.mp4", "64x48", 0.3, "yuvj420p", X264 + "keyint=9"),
    ("range-av1-full.mp4", "64x48", 0.3, "yuv420p", "-c:v libaom-av1 -cpu-used 8 -crf 30 -color_range pc"),
    ("range-mjpeg-full.avi", "64x48", 0.2, "yuvj444p", "-c:v mjpeg -q:v 9"),
    ("range-mjpeg-full.mkv", "64x48", 0.2, "yuvj420p", "-c:v mjpeg -q:v 9"),
    ("range-mjpeg-full-444.mkv", "64x48", 0.2, "yuvj444p", "-c:v mjpeg -q:v 9"),
    ("range-mjpeg-limited.avi", "64x48", 0.2, "yuv420p", "-c:v mjpeg -q:v 9 -strict unofficial"),
    # high dynamic range
    ("hdr-pq.mp4", "64x48", 0.3, "yuv420p10le", X265 + "qp=24:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"),
    ("hdr-hlg.mp4", "64x48", 0.3, "yuv420p10le", X265 + "qp=24:colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"),
    # codecs that GStreamer's demuxers do not know
    ("codec-utvideo.avi", "32x24", 0.2, "yuv420p", "-c:v utvideo"),
    ("codec-magicyuv.mkv", "32x24", 0.2, "yuv420p", "-c:v magicyuv"),
    ("codec-dnxhr.mov", "256x128", 0.1, "yuv422p", "-c:v dnxhd -profile:v dnxhr_lb"),
    ("codec-v410.mov", "16x12", 0.1, "yuv444p10le", "-c:v v410"),
]

OPEN = "open-gop=1:keyint=10:min-keyint=10:bframes=2:b-adapt=0:scenecut=0"
# name, containers, encoder, part that is copied
CUTS = [
    ("h264", "mp4 mkv ts avi", X264 + OPEN, "-ss 1.3 -t 0.95"),
    ("hevc", "mp4 mkv ts", X265 + "qp=30:" + OPEN, "-ss 1.3 -t 0.95"),
    ("mpeg2", "mp4 mkv ts avi", "-c:v mpeg2video -bf 2 -g 10 -q:v 12", "-ss 1.3 -t 0.95"),
    ("refresh", "mp4 mkv", X264 + "intra-refresh=1:keyint=8:bframes=0:scenecut=0", "-ss 1.1 -t 0.8"),
    ("refresh", "ts", X264 + "intra-refresh=1:keyint=8:bframes=0:scenecut=0", "-ss 0.7 -t 0.8"),
    ("h264-start", "mp4", X264 + "keyint=10:min-keyint=10:bframes=2:b-adapt=0:scenecut=0", "-ss 0 -t 1.25"),
]


def clip(name, size, seconds, pixels, encoder):
    picture = MOVING.format(size=size, seconds=seconds)
    if size == "1280x720":
        picture = f"color=c=0x40A0E0:size={size}:rate=10:duration={seconds}"  # compresses to a few hundred bytes
    is_full = "full" in name or pixels.startswith(("yuvj", "gray1"))
    spread = "pc" if is_full else "tv"
    source = ["-f", "lavfi", "-i", picture, "-vf", f"scale=out_range={spread}"]
    options = [*encoder.split(), "-bitexact"]
    assert make(FOLDER / name, [*source, "-pix_fmt", pixels, *options]), name


def cut(name, containers, encoder, part):
    picture = MOVING.format(size="64x48", seconds=3)
    for container in containers.split():
        whole = FOLDER / f"whole.{container}"
        whole.unlink(missing_ok=True)
        rate = ["-r", "25"] if "mpeg2" in encoder else []
        source = ["-f", "lavfi", "-i", picture.replace("rate=10", "rate=25")]
        assert make(whole, [*source, *rate, "-pix_fmt", "yuv420p", *encoder.split(), "-bitexact"])
        target = FOLDER / f"cut-{name}.{container}"
        assert make(target, [*part.split(), "-i", str(whole), "-c", "copy", "-bitexact"]), target
        whole.unlink()


def without_first_alpha(source, target):
    """A copy of a WebM file whose first picture has no transparency: its BlockAdditions become a Void element."""
    content = bytearray((FOLDER / source).read_bytes())
    at = content.index(b"\x75\xa1")
    size = content[at + 2]
    assert size & 0x80, "expected a size of one byte"
    content[at : at + 3] = bytes([0xEC, 0x40, size & 0x7F])
    (FOLDER / target).write_bytes(content)


def main():
    for path in FOLDER.iterdir():
        path.unlink()
    for row in CLIPS:
        clip(*row)
    for row in CUTS:
        cut(*row)
    without_first_alpha("depth-vp8-alpha.webm", "depth-vp8-alpha-later.webm")
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix != ".json":
            account = truth(path)
            found[path.name] = {
                "pixels": account["pixels"],
                "means": [[round(value, 1) for value in frame] for frame in account["means"]],
            }
            path.with_name(path.name + ".json").unlink()
            print(f"{path.stat().st_size:6} {len(account['means']):3} {path.name} {account['pixels']}")
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(account)}" for name, account in found.items())
    (FOLDER / "truth.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
