"""Groups of labelled pictures: what cross-validation must not separate. Pure.

Stated groups and thumbnails in, group ids out. Near duplicates of a class join their groups; a class with one group is
divided into blocks of neighbouring pictures, so that something can be held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NEAR = 0.02  # mean difference of grey levels (0..1) between the thumbnails of near duplicates
_MIN_GROUPS = 5  # a class with fewer is divided into blocks of neighbouring pictures


def groups_of(
    stated: Sequence[str], thumbnails: np.ndarray, ids: np.ndarray, names: Sequence[str], notes: list[str]
) -> np.ndarray:
    """Group ids (n,): the stated groups (n,), divided where a class has too few, and joined by near duplicates."""
    labels = [f"{group}\n" for group in stated]
    divided = []
    for c, name in enumerate(names):
        rows = np.flatnonzero(ids == c)
        if len({stated[int(row)] for row in rows}) < 2:
            divided.append(name)
            blocks = np.array_split(rows, min(_MIN_GROUPS, len(rows)))
            for number, block in enumerate(blocks):
                for row in block:
                    labels[row] = f"{stated[int(row)]}\n{name}\n{number}"
    if divided:
        shown = ", ".join(divided[:5]) + (" ..." if len(divided) > 5 else "")
        notes.append(
            f"one sequence only in {shown}: it was divided into blocks, so the accuracy of other places may be lower"
        )
    parents = list(range(len(stated)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    first_of: dict[str, int] = {}
    for row, label in enumerate(labels):
        parents[root(row)] = root(first_of.setdefault(label, row))
    joined = 0
    for c, name in enumerate(names):
        if name in divided:
            continue
        rows, before, count = np.flatnonzero(ids == c), [*parents], joined
        for place, row in enumerate(rows):
            earlier = rows[:place]
            for other in earlier[np.abs(thumbnails[earlier] - thumbnails[row]).mean(1) < _NEAR]:
                if root(int(other)) != root(int(row)):
                    parents[root(int(row))] = root(int(other))
                    joined += 1
        # Before a fixed camera all sequences of a class may be near each other: joined, none could be held out.
        if len({root(int(row)) for row in rows}) < 2:
            parents, joined = before, count
    if joined:
        notes.append(f"{joined} groups were joined, because they hold near duplicates")
    roots = [root(row) for row in range(len(stated))]
    return np.unique(roots, return_inverse=True)[1]
