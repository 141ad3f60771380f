"""Measures what `video.still_interval` saves, and what it changes: `python -m bench.still_scenes CLIP ... [--set ...]`.

Every frame of each clip is scored, and a second scorer skips still frames. Printed are the share of frames that it
scores, the share of frames with the same edge class as with full scoring, and the processor time compared with full
scoring. The last row is a still scene: the first frame of the first clip with new sensor noise in each frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from threadpoolctl import threadpool_limits

from sagelink.models.pair import Pair
from sagelink.pipeline.config.file import load_config, parse_assignments
from sagelink.pipeline.types import Frame, Pixels
from sagelink.stages.score import Score
from sagelink.stages.still_scenes import ScoreChanges, StillDetector

_STILL_FRAMES, _STILL_FPS, _NOISE = 200, 10, 3.0  # noise: standard deviation in levels


def clip_frames(path: Path, fps: float) -> Iterator[tuple[float, Pixels]]:
    """Times in seconds and pictures, at up to `fps`."""
    with av.open(str(path)) as container:
        due = 0.0
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= due:
                due += 1 / fps
                yield frame.time, frame.to_ndarray(format="rgb24")


def still_frames(picture: Pixels) -> Iterator[tuple[float, Pixels]]:
    rng = np.random.default_rng(0)
    for number in range(_STILL_FRAMES):
        noise = rng.normal(0, _NOISE, picture.shape)
        yield number / _STILL_FPS, np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def compare(score: Score, frames: Iterable[tuple[float, Pixels]], interval_s: float) -> str:
    """The cells of a row of the table."""
    changes = ScoreChanges(score, {"bench": StillDetector(interval_s)}, lambda _: None)
    spent, scored, same = [0.0, 0.0], [], []
    for seq, (stream_s, pixels) in enumerate(frames):
        batch, classes = [Frame(seq, "bench", 0, stream_s, pixels, 0.0)], []
        for number, scorer in enumerate((score, changes)):
            began = time.process_time()
            (found,) = scorer(batch)
            spent[number] += time.process_time() - began
            classes.append(found.answer.class_id)
        scored.append(not found.repeated)
        same.append(classes[0] == classes[1])
    share = spent[1] / spent[0]
    return f"{len(same)} | {np.mean(scored):.1%} | {np.mean(same):.2%} | {share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--fps", type=float, default=10)
    parser.add_argument("--interval", type=float, default=5.0, help="video.still_interval in seconds")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    arguments = parser.parse_args()
    config = load_config(None, {"threads": 1, **parse_assignments(arguments.assignments)})
    pair = Pair.load(config)
    score = Score(pair.edge, pair.server.grid, config.select.importance, config.capture.resize)
    print("| clip | frames | scored | same class | processor time |\n|---|---|---|---|---|")
    with threadpool_limits(1):
        for clip in arguments.clips:
            print(f"| {clip.name} | {compare(score, clip_frames(clip, arguments.fps), arguments.interval)} |")
        first = next(clip_frames(arguments.clips[0], arguments.fps))[1]
        print(f"| still, with noise | {compare(score, still_frames(first), arguments.interval)} |")


if __name__ == "__main__":
    main()
