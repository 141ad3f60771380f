"""Combinations of classes: the answers of a multi-label head, whose pictures show several classes at once, or none.

Such a head has one sigmoid for each class. Its answers are combinations of classes, and the logit of a combination is
the sum of the logits of its classes. A softmax over all combinations is exactly the product of the sigmoids; so gate,
fusion, scene tracking and messages treat a combination like any other class ("label powerset", Tsoumakas & Katakis
2007). With many classes, only combinations that were taught are answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations as subsets

import numpy as np
from numpy.typing import NDArray

AND, NONE = " + ", "none"  # in labels: `car + person`; a picture that shows none of the classes
_ALL_UP_TO = 6  # classes: 64 combinations

Combination = tuple[int, ...]  # class ids, rising


def classes_in(label: str) -> frozenset[str]:
    """The classes that a label names."""
    return frozenset() if label == NONE else frozenset(label.split(AND))


def label_of(classes: Iterable[str]) -> str:
    """The label that names these classes."""
    return AND.join(sorted(classes)) or NONE


def fault_of_class(name: str) -> str | None:
    """Why a multi-label head cannot have a class with this name; None if it can."""
    if name.casefold() == NONE or AND.strip() in name:
        return f"class name {name!r}: in a head with several labels, {NONE!r} and '+' are reserved; accepted: another"
    return None


def answers_of(count: int, taught: Iterable[Combination]) -> tuple[Combination, ...]:
    """The combinations of `count` classes that can be answers: all, or with many classes those that were taught, each
    class alone, and none."""
    if count <= _ALL_UP_TO:
        return tuple(chosen for size in range(count + 1) for chosen in subsets(range(count), size))
    return tuple(sorted({(), *((number,) for number in range(count)), *taught}, key=lambda each: (len(each), each)))


def names_of(classes: Sequence[str], answers: Sequence[Combination]) -> tuple[str, ...]:
    return tuple(label_of(classes[number] for number in chosen) for chosen in answers)


def membership(count: int, answers: Sequence[Combination]) -> NDArray[np.float32]:
    """(A, C): 1 where an answer holds a class. It turns logits (C,) of classes into those of answers (A,)."""
    matrix = np.zeros((len(answers), count), np.float32)
    for row, chosen in enumerate(answers):
        matrix[row, [*chosen]] = 1
    return matrix
