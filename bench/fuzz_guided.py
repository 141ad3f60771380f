"""Fuzzes the server's decoder guided by code coverage: `python -m bench.fuzz_guided [--inputs 100000] [--seed 1]`.

Like `bench.fuzz`, but Atheris (`pip install atheris`; CPython on Linux) makes the messages: it starts from valid ones
and keeps those that reach new code. The checksum is added afterwards.
"""

from __future__ import annotations

import argparse
import atexit
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sagelink.transport"]):
    from sagelink.transport import codecs  # noqa: F401

from bench.fuzz import CRC_BYTES, FuzzTarget, demo_canvas, valid_messages
from sagelink.transport.envelope import seal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    canvas = demo_canvas()
    corpus = tempfile.TemporaryDirectory()
    for number, message in enumerate(valid_messages(canvas)):
        (Path(corpus.name) / str(number)).write_bytes(message[:-CRC_BYTES])
    target = FuzzTarget(canvas)
    atexit.register(lambda: print(target))  # atheris.Fuzz never returns
    options = [f"-atheris_runs={arguments.inputs}", f"-seed={arguments.seed}", "-max_len=20000", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, corpus.name], lambda body: target(seal(body)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
