"""The command `sagelink adapt`. Heavy imports stay inside."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sagelink.app.options import (
    Assignments,
    ConfigFile,
    EdgeCheckpoint,
    EdgeModel,
    Pair,
    ServerCheckpoint,
    ServerModel,
    command_settings,
    numbers,
)
from sagelink.lab import FEWEST
from sagelink.pipeline.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.lab.held_out import Agreement
    from sagelink.lab.progress import Bar

_HELD_OUT = 200  # frames at most: more would only make the checks longer


def adapt(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Frames like those of the site, without labels: folders of images, video files, recorded runs.",
            metavar="SOURCE...",
        ),
    ],
    minutes: Annotated[float, typer.Option(help="How long to learn; preparing and checking come on top.")] = 30.0,
    out: Annotated[Path, typer.Option(help="The adapted weights, for --server-checkpoint.")] = Path(
        "adapted.safetensors"
    ),
    sizes: Annotated[
        str, typer.Option("--bytes", help="Sizes of a message at which it must not be worse than the stock server.")
    ] = "600,1000,1500,2200,3200,4500",
    frames: Annotated[int, typer.Option(min=1, help="At most so many frames, spread over the sources.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn by lot.")] = 0,
    config: ConfigFile = None,
    models: Pair = None,
    edge_model: EdgeModel = None,
    edge_checkpoint: EdgeCheckpoint = None,
    server_model: ServerModel = None,
    server_checkpoint: ServerCheckpoint = None,
    device: Annotated[str | None, typer.Option(help="Of the server's model: cpu, cuda, cuda:N or mps.")] = None,
    assignments: Assignments = None,
) -> None:
    """Adapt the server to partial, coded evidence, with frames of your own and no labels; Ctrl-C keeps what is done."""
    given = locals()
    if not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}; accepted: more than 0")
    wanted = numbers("--bytes", sizes, 10_000_000)
    from rich.console import Console

    from sagelink.lab.adaptation import Student, bf16_pays, mix_on, save_adapted
    from sagelink.lab.harness import Harness
    from sagelink.lab.held_out import SHARES, HeldOut
    from sagelink.lab.progress import Bar
    from sagelink.lab.trainer import Trainer
    from sagelink.lab.training_batches import BatchDataset
    from sagelink.lab.unlabelled_frames import gather
    from sagelink.models.loading import weights_digest
    from sagelink.models.pair import Pair as ModelPair
    from sagelink.pipeline.outputs import check_writable
    from sagelink.stages.frontier import find_frontier, read_frontier

    settings = command_settings(given | {"source": sources[0]}, {"source": "capture.source", "device": "server.device"})
    if settings.ship.server:
        raise UsageError(f"ship.server {settings.ship.server!r}: the server to adapt must be here; accepted: none")
    check_writable(out.parent)
    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(f"--out {str(out)!r}; accepted: a .safetensors file to write")
    pair = ModelPair.load(settings)
    stock, harness = pair.server, Harness(pair, settings.capture.resize)
    cameras = [settings.all_cameras[0].model_copy(update={"source": source}) for source in sources]
    console = Console()
    with Bar(console) as bar:
        learned, held_out = gather(cameras, frames, harness, settings, lambda done: bar.show("frames", done, frames))
        held_out = held_out.part(slice(0, None, -(-len(held_out) // _HELD_OUT) or 1))
        if len(held_out) < FEWEST:
            raise UsageError(
                f"{len(learned) + len(held_out)} frames in {', '.join(map(repr, sources))}, too few to hold out "
                f"{FEWEST}; accepted: {FEWEST * 7} or more"
            )
        bf16 = bf16_pays(stock)
        lines = read_frontier(
            find_frontier(stock.name, settings.encode.frontier, settings.server.checkpoint), harness.canvas
        )
        judge = HeldOut(held_out, lines, stock, wanted, bf16, lambda done, of: bar.show("held-out messages", done, of))
        views = BatchDataset(learned, lines, harness.canvas, (wanted[0], wanted[-1]), mix_on(stock), seed)
        student = Student(stock, views, bf16)
        trainer = Trainer(student, stock, judge, wanted[-1], minutes * 60)
        state = out.with_name(out.name + ".resume")
        identity = {
            "sources": [*sources],
            "frames": frames,
            "bytes": wanted,
            "seed": seed,
            "server": weights_digest(stock),
        }
        console.print(
            f"{len(learned)} frames to learn from, {len(held_out)} held out; {'bf16' if bf16 else 'fp32'} on "
            f"{settings.server.device}; stock server at {sizes} bytes, "
            f"and with {' and '.join(f'{share:.0%}' for share in SHARES)} of the units: {judge.stock}",
            highlight=False,
            soft_wrap=True,
        )
        if state.exists():
            trainer.resume(state, identity)
            console.print(f"goes on with {state} after step {trainer.steps}", highlight=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _asked_to_stop() as stopped:
            screen = _Screen(console, bar, minutes * 60)
            ended = trainer.train(time.monotonic, stopped, screen, lambda: trainer.save(state, identity))
        trainer.save(state, identity)
        if not ended:
            kept = f"interrupted after step {trainer.steps}; kept in {state}: the same command goes on"
            console.print(kept, style="yellow", highlight=False, soft_wrap=True)
            return
        adapted = trainer.result(lambda done, of: bar.show("shares of adapted weights", done, of))
    save_adapted(adapted.model, out, adapted.share, adapted.steps)
    state.unlink()
    console.print(
        f"{trainer.steps} steps; {adapted.share:.0%} of the way to the student of step {adapted.steps}: "
        f"{adapted.agreement}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"written to {out}; use it with --server-checkpoint {out}", highlight=False, soft_wrap=True)


class _Screen:
    """Tells how an adaptation goes."""

    def __init__(self, console: Console, bar: Bar, limit_s: float) -> None:
        self._console = console
        self._bar = bar
        self._limit_s = limit_s

    def stepped(self, steps: int, loss: float, spent_s: float) -> None:
        done, limit = round(spent_s), round(self._limit_s)
        self._bar.show(f"step {steps}, loss {loss:.3f}, seconds", min(done, limit), limit)

    def checked(self, agreement: Agreement) -> None:
        self._console.print(f"held out: {agreement}", highlight=False)


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM only leave word inside, so that a step is whole; a second one ends the command at once."""
    asked = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
