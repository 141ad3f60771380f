"""Formats the result of `sagelink teach` for the terminal: accuracy by class and by bytes, confusion, advice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from sagelink.lab.bootstrap_intervals import Bootstrap
from sagelink.lab.eval.tables import percent
from sagelink.lab.probabilities import Ids, Matrix
from sagelink.lab.teach.teaching import Taught, error_of, size_name
from sagelink.models.heads.combinations import membership

_MAX_CONFUSION = 12  # classes: a wider table does not fit a terminal
_INSEPARABLE = 0.3  # of the pictures of two classes are taken for the other one
_MAX_ADVICE = 5
_NARROW = 18  # characters of a class name in a column


def tables(taught: Taught, seed: int) -> Iterator[Table]:
    """Tables of held-out pictures."""
    yield _by_class(taught, seed)
    yield _by_bytes(taught, seed)
    if taught.head.card.combinations is None and len(taught.head.classes) <= _MAX_CONFUSION:
        yield _confusion(taught)


def confusion(log_probs: Matrix, ids: Ids, classes: int) -> NDArray[np.intp]:
    """(C, C) counts by true class (row) and answer (column)."""
    counts = np.zeros((classes, classes), np.intp)
    np.add.at(counts, (ids, log_probs.argmax(1)), 1)
    return counts


def inseparable(taught: Taught) -> list[str]:
    """Sentences on the pairs of classes that the head hardly tells apart."""
    names = taught.head.classes
    if taught.head.card.combinations is not None:
        return []
    counts = confusion(taught.by_size[-1].fused, taught.ids, len(names))
    pairs = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            mixed = counts[first, second] + counts[second, first]
            both = counts[np.ix_([first, second], [first, second])].sum()
            if both and mixed / both >= _INSEPARABLE:
                pairs.append((mixed / both, names[first], names[second]))
    return [
        f"{a!r} and {b!r} are hardly told apart ({share:.0%} confused): add pictures that show the difference, or make "
        "one class of them"
        for share, a, b in sorted(pairs, reverse=True)[:_MAX_ADVICE]
    ]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _share(bootstrap: Bootstrap, right: NDArray[np.bool_], subset: NDArray[np.bool_] | None = None) -> str:
    found = bootstrap.share(right, subset)
    return "-" if found is None else f"{found[0]:.1%} ({100 * found[1][0]:.0f}-{100 * found[1][1]:.0f})"


def _by_class(taught: Taught, seed: int) -> Table:
    smallest, ids = taught.by_size[0], taught.ids
    at = size_name(smallest.size)
    table = _table("held-out pictures: right answers (95 % interval)", "class", "pictures", "edge", f"fused, {at} B")
    bootstrap = Bootstrap.over(len(ids), seed)
    edge, fused = taught.edge.argmax(1) == ids, smallest.fused.argmax(1) == ids
    card = taught.head.card
    if card.combinations is None:
        for c, name in enumerate(card.classes):
            rows = ids == c
            table.add_row(name, str(int(rows.sum())), _share(bootstrap, edge, rows), _share(bootstrap, fused, rows))
    else:
        matrix = membership(len(card.classes), card.combinations)  # a class is right where it is shown, or rightly not
        for name, shown in zip(card.classes, matrix.T, strict=True):
            right = [_share(bootstrap, shown[each.argmax(1)] == shown[ids]) for each in (taught.edge, smallest.fused)]
            table.add_row(name, str(int(shown[ids].sum())), *right)
    table.add_row("all", str(len(ids)), _share(bootstrap, edge), _share(bootstrap, fused))
    return table


def _by_bytes(taught: Taught, seed: int) -> Table:
    table = _table(
        f"\nby message size; the gate would send {taught.gate_sends:.0%}, {taught.unknown_rate:.1%} would be unknown",
        *("bytes", "sent", "server", "fused", "weight", "calibration error"),
    )
    ids, bootstrap = taught.ids, Bootstrap.over(len(taught.ids), seed)
    table.add_row(
        "0", "-", "-", _share(bootstrap, taught.edge.argmax(1) == ids), "-", percent(error_of(taught.edge, ids))
    )
    for each in taught.by_size:
        table.add_row(
            size_name(each.size),
            percent(float(each.sent.mean())),
            _share(bootstrap, each.server.argmax(1) == ids, each.sent),
            _share(bootstrap, each.fused.argmax(1) == ids),
            f"{each.weight:.2f}",
            percent(error_of(each.fused, ids)),
        )
    return table


def _confusion(taught: Taught) -> Table:
    names = [name[:_NARROW] for name in taught.head.classes]
    table = _table("\nconfusion of fused answers at the smallest size: true class, answer", "", *names)
    counts = confusion(taught.by_size[0].fused, taught.ids, len(names))
    for name, row in zip(names, counts, strict=True):
        table.add_row(name, *(str(count) if count else "." for count in row))
    return table
