"""`sagelink teach`: takes labelled pictures of your own classes, teaches a head on both models, writes the head file.

Heavy imports stay inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sagelink.app.options import ModelOptions, with_model_options
from sagelink.pipeline.errors import SagelinkError, UsageError

if TYPE_CHECKING:
    from sagelink.lab.teach.feature_cache import FeatureCache
    from sagelink.lab.teach.teaching import Size

_CACHE = ".sagelink-teach"  # folder beside the head file
_HEAD_BYTES, _CLASS_BYTES = 64_000, 8_000  # a head file of large models needs no more


@with_model_options
def teach(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Class folders; CSV file (file,label[,group]); clip or recording with NAME.labels.csv beside it.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Head file to write, for --head.")] = Path("site.head"),
    labels: Annotated[
        Optional[Path], typer.Option(help="CSV file with the columns file, label and optionally group, for a folder.")
    ] = None,
    sizes: Annotated[
        str, typer.Option("--bytes", help="Message sizes at which the server is taught; full: the whole picture.")
    ] = "500,1000,2000,full",
    several: Annotated[
        bool, typer.Option("--several", help="A picture may show several classes ('car + person') or 'none'.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the confidence intervals.")] = 0,
    cache: Annotated[bool, typer.Option(help="Keep computed features beside the head file.")] = True,
    *,
    options: ModelOptions,
) -> None:
    """Teach your own classes from labelled pictures.

    `sagelink run --head FILE` then names them."""
    wanted = _parse_sizes(sizes)
    from rich.console import Console

    from sagelink.lab.progress_bar import ProgressBar
    from sagelink.lab.teach.contact_sheet import SHEET_MARK, contact_sheet, sheet_path, suspects
    from sagelink.lab.teach.feature_cache import FeatureCache
    from sagelink.lab.teach.features import FeatureMaker
    from sagelink.lab.teach.pictures import find_pictures_to_teach
    from sagelink.lab.teach.sources import check_sources
    from sagelink.lab.teach.tables import inseparable, tables
    from sagelink.lab.teach.teaching import teach as teach_head
    from sagelink.models.heads.head import is_head_file, write_head
    from sagelink.models.pair import Pair
    from sagelink.pipeline.files.output_files import cannot_open, cannot_write, check_output_file, check_room, marked
    from sagelink.pipeline.files.private_files import replace_text

    settings = options.load({})
    if settings.head is not None or settings.ship.server:
        raise UsageError("head and ship.server have no meaning for `teach`: it teaches on both models in this process")
    sheet = sheet_path(out)
    check_output_file(out, is_head_file, "`sagelink teach`")
    check_output_file(sheet, marked(SHEET_MARK.encode()), "`sagelink teach`")
    check_sources(sources, labels)
    pair = Pair.load_backbones(settings)  # before the pictures, which can take minutes to read
    console = Console()
    with ProgressBar(console) as bar:
        pictures = find_pictures_to_teach(sources, labels, bar.show, several)
    for note in [*pictures.notes, *_vanished(out, pictures.names)]:
        console.print(note, style="yellow", highlight=False, soft_wrap=True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_open(out.parent, error) from None
    check_room(out, _HEAD_BYTES + _CLASS_BYTES * len(pictures.classes))
    kept = FeatureCache(out.parent / _CACHE if cache else None)
    with ProgressBar(console) as bar, _keeping(kept):
        taught = teach_head(pictures, pair, FeatureMaker(pair, settings, kept), wanted, seed, bar.show)
    for table in tables(taught, seed):
        console.print(table)
    for sentence in inseparable(taught):
        console.print(sentence, style="yellow", highlight=False, soft_wrap=True)
    if kept.fault:
        console.print(kept.fault, style="yellow", highlight=False, soft_wrap=True)
    size = write_head(taught.head, out)
    try:
        if doubtful := suspects(taught.by_size[-1].fused, taught.ids):
            replace_text(sheet, contact_sheet(pictures, taught.by_size[-1].fused))
            found = "1 picture" if len(doubtful) == 1 else f"{len(doubtful)} pictures"
            console.print(f"{found} may have a wrong label: {sheet}", highlight=False, soft_wrap=True)
        else:
            sheet.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(sheet, error) from None
    console.print(
        f"\n{len(taught.head.card.classes)} classes written to {out} ({size / 1000:.1f} kB); use it with --head {out}",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def _keeping(cache: FeatureCache) -> Iterator[None]:
    """Turns Ctrl-C into an error that says what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        state = "nothing is kept"
        if cache.folder is not None:
            state = f"computed features are kept in {str(cache.folder)!r}: the same command continues"
        raise SagelinkError(f"interrupted; {state}") from None


def _vanished(out: Path, classes: Sequence[str]) -> Iterator[str]:
    """A note on the classes of the head file that stands at `out` which the new head will lack."""
    from sagelink.models.heads.head import read_head

    try:
        earlier = read_head(out).card.classes if out.exists() else ()
    except UsageError:  # it is damaged, and will be replaced
        return
    if gone := [name for name in earlier if name not in classes]:
        shown = ", ".join(map(repr, gone[:5])) + (" ..." if len(gone) > 5 else "")
        them = "them" if len(gone) > 1 else "it"
        yield f"the earlier head in {out} knows {shown}; the new one will not, because there is no picture of {them}"


def _parse_sizes(text: str) -> list[Size]:
    """`1000,2000,full`: bytes ascending, the full frame (None) last. Raises UsageError."""
    from sagelink.transport.envelope import MAX_MESSAGE_BYTES

    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers = {int(word) for word in words if word.isdecimal()}
    odd = [word for word in words if not word.isdecimal() and word != "full"]
    if not words or odd or any(not 1 <= number <= MAX_MESSAGE_BYTES for number in numbers):
        raise UsageError(
            f"--bytes {text!r}; accepted: numbers from 1 to {MAX_MESSAGE_BYTES} and full, such as 1000,full"
        )
    return [*sorted(numbers), *([None] if "full" in words else [])]
