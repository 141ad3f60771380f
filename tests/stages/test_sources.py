"""Every source on real files: its frames, their times, and the errors for unreadable files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sagelink.pipeline.config.camera import CameraConfig
from sagelink.pipeline.errors import UsageError
from sagelink.stages.decoded_picture import MAX_SIDE
from sagelink.stages.sources.open import open_source
from sagelink.stages.sources.world import CLASSES


def write_video(
    path: Path,
    frames: int = 20,
    size: tuple[int, int] = (64, 48),
    times_s: list[float] | None = None,
    fps: int = 10,
) -> Path:
    """A clip whose frames are identified by their brightness: 10, 15, 20 ..."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "5", "bf": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 10 + 5 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = round(1000 * (times_s[index] if times_s else index / fps))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def open_path(path: Path | str, **options: object) -> object:
    return open_source(CameraConfig(name="camera", source=str(path), **options))


class TestVideo:
    def test_every_frame_in_order_with_its_own_time(self, tmp_path: Path) -> None:
        times = [0.0, 0.1, 0.35, 0.4, 1.5]
        frames = list(open_path(write_video(tmp_path / "a.mp4", 5, times_s=times)))
        assert [round(frame.stream_s, 3) for frame in frames] == times
        assert [round(float(frame.pixels.mean()) / 5) for frame in frames] == [2, 3, 4, 5, 6]
        assert frames[0].pixels.shape == (48, 64, 3)
        assert frames[0].pixels.dtype == np.uint8

    def test_red_is_red(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "red.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            picture = np.zeros((64, 64, 3), np.uint8)
            picture[..., 0] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        red, green, blue = next(iter(open_path(tmp_path / "red.mp4"))).pixels.reshape(-1, 3).mean(0)
        assert red > 190
        assert max(green, blue) < 30

    @pytest.mark.parametrize("size", [(66, 50), (34, 126)])
    def test_odd_aspects(self, tmp_path: Path, size: tuple[int, int]) -> None:
        frame = next(iter(open_path(write_video(tmp_path / "a.mp4", 1, size))))
        assert frame.pixels.shape == (size[1], size[0], 3)

    def test_corrupt_frames_are_counted_and_skipped(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", 40)
        data = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        for packet in packets[11:13]:
            start = data.index(packet)
            data[start : start + len(packet)] = np.random.default_rng(0).bytes(len(packet))
        path.write_bytes(data)
        source = open_path(path)
        frames = list(source)
        assert (len(frames), source.skipped) == (38, 2)
        assert float(frames[-1].pixels.mean()) > 195  # the frames after the damage are there
        assert round(frames[-1].stream_s, 3) == 3.9

    def test_time_never_runs_backwards(self, tmp_path: Path) -> None:
        first, second = write_video(tmp_path / "a.ts", 6), write_video(tmp_path / "b.ts", 6)
        joined = tmp_path / "c.ts"  # the second part starts at 0 again
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        times = [frame.stream_s for frame in open_path(joined)]
        assert len(times) >= 10
        assert times == sorted(times)

    @pytest.mark.parametrize("content", [b"", b"this is a text, not a video\n" * 50])
    def test_a_file_that_is_no_video_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "clip.mp4"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"clip\.mp4' is not a video"):
            open_path(path)

    def test_a_video_without_frames_is_refused(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mkv", 3)
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])  # cut before the first cluster
        with pytest.raises(UsageError, match=r"a\.mkv'.* (no frame|not a video)"):
            open_path(path)


class TestImages:
    def test_names_order_pace_and_orientation(self, tmp_path: Path) -> None:
        wide = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6  # turn a quarter clockwise
        wide.save(tmp_path / "b.jpg", exif=exif)
        (tmp_path / "sub").mkdir()
        wide.convert("L").save(tmp_path / "sub" / "c.png")
        wide.save(tmp_path / "a.webp")
        (tmp_path / "notes.txt").write_text("not an image")
        source = open_path(tmp_path, image_fps=4)
        frames = list(source)
        assert [frame.name for frame in frames] == ["a.webp", "b.jpg", "sub/c.png"]
        assert [frame.stream_s for frame in frames] == [0, 0.25, 0.5]
        assert [frame.pixels.shape for frame in frames] == [(20, 40, 3), (40, 20, 3), (20, 40, 3)]
        assert source.length == 3

    def test_an_unreadable_image_is_counted_and_skipped(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
        (tmp_path / "c.jpg").write_text("no image")
        source = open_path(tmp_path)
        assert [frame.name for frame in source] == ["a.png"]
        assert source.skipped == 2

    def test_a_folder_without_readable_images_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="holds no images; accepted: .avif"):
            open_path(tmp_path)
        (tmp_path / "a.png").write_text("no image")
        with pytest.raises(UsageError, match="none of its 1 images can be read"):
            open_path(tmp_path)

    def test_huge_images_are_scaled_down(self, tmp_path: Path) -> None:
        Image.new("RGB", (6_000, 3_000)).save(tmp_path / "a.jpg")
        frame = next(iter(open_path(tmp_path)))
        assert max(frame.pixels.shape) <= MAX_SIDE
        assert frame.pixels.shape[1] == 2 * frame.pixels.shape[0]


class TestSynthetic:
    def test_same_seed_same_pixels(self) -> None:
        text = "synthetic:7,size=96x64,fps=10,seed=3,hold=3"
        first, again = list(open_path(text)), list(open_path(text))
        assert len(first) == 7
        assert all((a.pixels == b.pixels).all() and a.truth == b.truth for a, b in zip(first, again, strict=True))
        assert first[0].pixels.shape == (64, 96, 3)
        assert [frame.stream_s for frame in first] == [i / 10 for i in range(7)]
        other = next(iter(open_path("synthetic:1,size=96x64,seed=4")))
        assert (other.pixels != first[0].pixels).any()

    def test_a_scene_holds_and_then_changes(self) -> None:
        frames = list(open_path("synthetic:200,hold=4,size=32x32"))
        truths = [frame.truth for frame in frames]
        assert all(len(set(truths[i : i + 4])) == 1 for i in range(0, 200, 4))
        assert len(set(truths)) > len(CLASSES) / 2
        assert (frames[0].pixels != frames[1].pixels).any()

    @pytest.mark.parametrize("options", ["", "0", "x", "5,size=9", "5,a", "5,b=1"])
    def test_invalid_options_are_refused(self, options: str) -> None:
        with pytest.raises(UsageError, match="accepted: synthetic:FRAMES"):
            open_path(f"synthetic:{options}")


def test_a_missing_path_is_refused() -> None:
    with pytest.raises(UsageError, match="'nowhere.mp4' does not exist; accepted: a video file"):
        open_path("nowhere.mp4")
