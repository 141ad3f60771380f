"""Fuzzes the server's decoder with damaged messages: `python -m bench.fuzz [--inputs 100000] [--seed 0]`.

Every message has a valid checksum, so that the code behind it is tested. The decoder may accept a message or refuse it
with MalformedMessage; any other result ends the run and prints the message. Prints the number of refused messages, the
longest time and the growth of the process. `bench.fuzz_guided` derives its messages from code coverage instead.
"""

from __future__ import annotations

import argparse
import random
import re
import struct
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from sagelink.models import loading
from sagelink.models.preprocess import make_picture
from sagelink.pipeline.config.models import ModelConfig
from sagelink.pipeline.types import OperatingPoint
from sagelink.server.receive import receive
from sagelink.stages.evidence_encoder import Encoder
from sagelink.stages.sources.synthetic import SyntheticSource
from sagelink.transport.codecs import Canvas, codec_names
from sagelink.transport.envelope import MalformedMessage, seal
from sagelink.transport.patch_embedding import Embedding

LIMIT_MB = 64
_HEADER_BYTES, CRC_BYTES = 13, 4
_FEW = 20  # units


def valid_messages(canvas: Canvas) -> list[bytes]:
    """Valid messages of every codec at several operating points."""
    encoder = Encoder([], canvas)
    order = np.random.default_rng(0).permutation(canvas.units)
    messages = []
    for shot in SyntheticSource(3, seed=1, hold=1):
        picture = make_picture(shot.pixels, canvas.pixels, "squash", "bicubic")
        for name in codec_names():
            for units in (canvas.units,) if name.endswith("-frame") else (canvas.units, _FEW):
                for side, quality in ((canvas.pixels, 4), (canvas.pixels // 2, 8)):
                    messages.append(encoder.message(7, picture, order, OperatingPoint(name, units, side, quality)))
    return messages


def damaged(messages: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Endless: valid messages with flipped bits, cuts, insertions, splices and extreme numbers."""
    while True:
        body = bytearray(rng.choice(messages)[:-CRC_BYTES])
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            at = rng.randrange(_HEADER_BYTES if rng.random() < 0.8 else 0, max(len(body), _HEADER_BYTES + 1))
            match rng.randrange(6):
                case 0 | 1 if at < len(body):
                    body[at] ^= 1 << rng.randrange(8)
                case 2:
                    del body[at:]
                case 3:
                    body[at:at] = rng.randbytes(rng.choice((1, 4, 50, 3000)))
                case 4:
                    other = rng.choice(messages)
                    body[at:] = other[rng.randrange(len(other)) :]
                case _:
                    number = rng.choice((0, 1, 2**14 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1))
                    body[at : at + 4] = struct.pack(rng.choice((">I", "<I")), number)
        yield seal(bytes(body))


def peak_mb() -> float:
    """Peak resident memory of this process in MB; Linux only."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


class FuzzTarget:
    """The decoder, with counters for its results, its longest time and the growth of the process."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._outcomes: Counter[str] = Counter()
        self._slowest_s, self._grown_mb = 0.0, 0.0
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the memory that is resident now
        self._before_mb = peak_mb()

    def __call__(self, message: bytes) -> None:
        began = time.perf_counter()
        try:
            receive(message, self._canvas)
            self._outcomes["accepted"] += 1
        except MalformedMessage:
            self._outcomes["refused"] += 1
        except BaseException:
            print(f"failed on this message: {message.hex()}")
            raise
        self._slowest_s = max(self._slowest_s, time.perf_counter() - began)
        self._grown_mb = peak_mb() - self._before_mb
        if self._grown_mb > LIMIT_MB:
            raise SystemExit(f"grew by {self._grown_mb:.0f} MB; limit {LIMIT_MB} MB; message: {message.hex()}")

    def __str__(self) -> str:
        refused, accepted = self._outcomes["refused"], self._outcomes["accepted"]
        return (
            f"{self._outcomes.total()} messages: {refused} refused, {accepted} accepted, "
            f"slowest {self._slowest_s * 1e3:.0f} ms, grew by {self._grown_mb:.1f} MB "
            f"({self._grown_mb / LIMIT_MB:.0%} of the limit)"
        )


def demo_canvas() -> Canvas:
    model = loading.load(ModelConfig(), "demo-server")
    return Canvas(model.grid.side, model.grid.patch_size, Embedding(*model.embedding()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    canvas = demo_canvas()
    messages = valid_messages(canvas)
    for message in messages:
        receive(message, canvas)
    source = damaged(messages, random.Random(arguments.seed))
    target = FuzzTarget(canvas)
    for message in islice(source, arguments.inputs):
        target(message)
    print(target)


if __name__ == "__main__":
    main()
