"""`sagelink adapt`: takes unlabelled frames, trains the server model on partial evidence, writes adapted weights.

Heavy imports stay inside.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sagelink.app.command_line import whole_number
from sagelink.app.edge.demo_notice import tell_demo_limit
from sagelink.app.options import ModelOptions, check_inputs, parse_integers, with_model_options
from sagelink.lab import MIN_IMAGES
from sagelink.pipeline.errors import SagelinkError, UsageError
from sagelink.pipeline.tasks import leave_terminal, stop_signals

if TYPE_CHECKING:
    from rich.console import Console

    from sagelink.lab.adapt.held_out import Agreement
    from sagelink.lab.adapt.trainer import Trainer
    from sagelink.lab.adapt.unlabelled_frames import AdaptationFrames
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.pipeline.config.schema import Config

_MAX_HELD_OUT = 200  # frames: more would only make the checks longer


@with_model_options
def adapt(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Frames like those of the site, without labels: folders of images, video files, recorded runs.",
            metavar="SOURCE",
        ),
    ],
    minutes: Annotated[
        float, typer.Option(metavar="N", help="Training time; preparation and checks take additional time.")
    ] = 30.0,
    out: Annotated[
        Path, typer.Option(help="Adapted weights to write, for --server-checkpoint.", metavar="FILE")
    ] = Path("adapted.safetensors"),
    sizes: Annotated[
        str,
        typer.Option(
            "--bytes",
            metavar="N,N,...",
            help="Message sizes at which the result must not be worse than the stock server.",
        ),
    ] = "600,1000,1500,2200,3200,4500",
    frames: Annotated[
        int,
        typer.Option(parser=whole_number(1), metavar="N", help="Maximum number of frames, spread over the sources."),
    ] = 2000,
    seed: Annotated[int, typer.Option(parser=whole_number(0), metavar="N", help="Seed of all random choices.")] = 0,
    *,
    options: ModelOptions,
    device: Annotated[
        str | None, typer.Option(help="Device of the server model: cpu, cuda, cuda:N or mps.", metavar="NAME")
    ] = None,
) -> None:
    """Train the server for partial evidence, without labels.

    Needs only your own frames. Ctrl-C saves the progress; the same command then continues."""
    if not minutes > 0:
        raise UsageError(f"--minutes {minutes:g}; accepted: more than 0")
    wanted = parse_integers("--bytes", sizes, 10_000_000)
    settings = options.load({"capture.source": sources[0], "server.device": device})
    check_inputs(sources)
    from zipfile import is_zipfile

    from sagelink.lab.adapt.adaptation import Student, batch_sizes, bf16_is_faster, is_adapted, save_adapted
    from sagelink.lab.adapt.held_out import UNIT_SHARES, HeldOut
    from sagelink.lab.adapt.trainer import Trainer
    from sagelink.lab.adapt.training_batches import BatchDataset
    from sagelink.lab.harness import Harness
    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.models.loading import load, weights_digest
    from sagelink.models.pair import Pair
    from sagelink.monitor.terminal.terminal import SafeConsole
    from sagelink.pipeline.files.output_files import check_output_file
    from sagelink.pipeline.files.private_files import make_private_folder
    from sagelink.stages.frontier import find_frontier, read_frontier

    if settings.ship.server:
        raise UsageError(f"ship.server {settings.ship.server!r}: only a local server can be adapted; accepted: none")
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {str(out)!r}; accepted: a .safetensors file to write")
    state = out.with_name(out.name + ".resume")
    check_output_file(out, is_adapted, "`sagelink adapt`")
    check_output_file(state, is_zipfile, "`sagelink adapt`")
    pair = Pair.load(settings)
    harness = Harness(pair, settings.capture.resize)
    console = SafeConsole()
    tell_demo_limit(console, settings, sources, has_truth=False)
    with ProgressBar(console) as bar:
        learned, held_out = _gather(bar, settings, harness, sources, frames)
        bf16 = bf16_is_faster(pair.server)
        lines = read_frontier(
            find_frontier(pair.server.name, settings.encode.frontier, settings.server.checkpoint), harness.canvas
        )
        judge = HeldOut(
            held_out, lines, pair.server, wanted, bf16, lambda done, of: bar.show("held-out messages", done, of)
        )
        batches = BatchDataset(learned, lines, harness.canvas, (wanted[0], wanted[-1]), batch_sizes(pair.server), seed)
        trainer = Trainer(Student(pair.server, batches, bf16), pair.server, judge, wanted[-1], minutes * 60)
        console.print(
            f"{len(learned)} frames to learn from, {len(held_out)} held out; {'bf16' if bf16 else 'fp32'} on "
            f"{settings.server.device}; stock server at {sizes} bytes, "
            f"and with {' and '.join(f'{share:.0%}' for share in UNIT_SHARES)} of the units: {judge.stock}",
            highlight=False,
            soft_wrap=True,
        )
        identity = {"sources": [*sources], "frames": frames, "bytes": wanted, "seed": seed}
        make_private_folder(out.parent)
        _train(console, bar, trainer, state, identity | {"server": weights_digest(pair.server)}, minutes * 60)
        adapted = trainer.result(lambda done, of: bar.show("shares of adapted weights", done, of))
    own = pair.server if settings.head is None else load(settings.server, settings.server_model)
    save_adapted(adapted.model, own, out, adapted.share, adapted.steps)
    state.unlink()
    console.print(
        f"{trainer.steps} steps; {adapted.share:.0%} of the way to the student of step {adapted.steps}: "
        f"{adapted.agreement}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"written to {out}; use it with --server-checkpoint {out}", soft_wrap=True)
    if settings.head is not None:
        console.print("heads that were taught before do not fit it: teach again with this checkpoint", soft_wrap=True)


def _gather(
    bar: ProgressBar, settings: Config, harness: Harness, sources: Sequence[str], frames: int
) -> tuple[AdaptationFrames, AdaptationFrames]:
    """Frames to learn from, and frames to check with. Raises UsageError when the sources have too few."""
    from sagelink.lab.adapt.unlabelled_frames import gather

    cameras = [settings.all_cameras[0].model_copy(update={"source": source}) for source in sources]
    learned, held_out = gather(cameras, frames, harness, settings, lambda done: bar.show("frames", done, frames))
    held_out = held_out.subset(slice(0, None, -(-len(held_out) // _MAX_HELD_OUT) or 1))
    if len(held_out) < MIN_IMAGES:
        raise UsageError(
            f"{len(learned) + len(held_out)} frames in {', '.join(map(repr, sources))}, too few to hold out "
            f"{MIN_IMAGES}; accepted: {MIN_IMAGES * 7} or more"
        )
    return learned, held_out


def _train(
    console: Console, bar: ProgressBar, trainer: Trainer, state: Path, identity: dict[str, object], limit_s: float
) -> None:
    """Trains from the beginning, or from the progress saved in `state`. Raises SagelinkError when a signal ended it."""
    if state.exists():
        trainer.resume(state, identity)
        console.print(f"continues with {state} after step {trainer.steps}")
    trainer.save(state, identity)  # a full disk ends the work before it begins
    with _stop_requested() as stopped:
        screen = _TrainingScreen(console, bar, limit_s)
        ended = trainer.train(time.monotonic, stopped, screen, lambda: trainer.save(state, identity))
    trainer.save(state, identity)
    if not ended:
        raise SagelinkError(
            f"interrupted after step {trainer.steps}; progress is in {state}: the same command continues"
        )


class _TrainingScreen:
    """Shows the progress of the training: loss and time in the bar, each check in a line."""

    def __init__(self, console: Console, bar: ProgressBar, limit_s: float) -> None:
        self._console = console
        self._bar = bar
        self._limit_s = limit_s

    def on_step(self, steps: int, loss: float, spent_s: float) -> None:
        done, limit = round(spent_s), round(self._limit_s)
        self._bar.show(f"step {steps}, loss {loss:.3f}, seconds", min(done, limit), limit)

    def on_check(self, agreement: Agreement) -> None:
        self._console.print(f"held out: {agreement}")


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that is true after a signal to stop, so that the current step is completed first.

    A second signal ends the command at once.
    """
    requested = False

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        leave_terminal(number)
        if requested:
            raise KeyboardInterrupt
        requested = True

    before = {number: signal.signal(number, note) for number in stop_signals()}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
