"""What a worker says of one candidate kernel: its time and a sketch of what it wrote.

In: the sketches of kernels that compete on the same inputs, a sketch being the elements of each
result at the same random places. Out: which of them are in a minority. A sample is enough: a fault
that changes the relative L2 difference by `TOLERANCE` carries a share of `TOLERANCE ** 2` of the
energy, which `PLACES` places meet some twenty times.

Invariant: only a clear majority accuses. With two kernels that disagree nobody knows who is right.

>>> right, wrong = (np.ones(4),), (np.zeros(4),)
>>> sorted(minority([right, wrong, right]))
[1]
>>> minority([right, wrong])
frozenset()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

#: Elements of each result that are compared.
PLACES = 8192
#: Relative L2 difference up to which two results are one.
TOLERANCE = 5e-2
#: Share of elements that may be not finite on one side alone (overflow depends on rounding).
STRAY = 1e-2
#: Elements count for at most so many times the median. On random inputs a quotient by nearly
#: nothing would otherwise outweigh all others, and its rounding with it.
LARGE = 8.0

Sketch: TypeAlias = tuple[np.ndarray[Any, Any], ...]


class Reading(NamedTuple):
    """One candidate that ran: seconds of one launch, and sampled elements of each of its results.

    Results that another right kernel need not agree about have no elements in the sketch.
    """

    seconds: float
    sketch: Sketch


def minority(sketches: Sequence[Sketch]) -> frozenset[int]:
    """Numbers of the sketches that differ from those of the largest group of equal ones.

    Empty where no group is the largest, and where the largest is a kernel alone.
    """
    groups: list[list[int]] = []
    for number, sketch in enumerate(sketches):
        for group in groups:
            if equal(sketches[group[0]], sketch):
                group.append(number)
                break
        else:
            groups.append([number])
    sizes = sorted((len(group) for group in groups), reverse=True)
    if len(sizes) < 2 or sizes[0] == sizes[1]:
        return frozenset()
    return frozenset(n for group in groups if len(group) < sizes[0] for n in group)


def equal(first: Sketch, second: Sketch) -> bool:
    """Whether all results agree: integers in most places, floats in relative L2 norm."""
    return all(_difference(a, b) <= TOLERANCE for a, b in zip(first, second, strict=True))


def _difference(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    if not first.size:
        return 0.0
    if first.dtype.kind != "f":
        return float(np.mean(first != second))
    a, b = first.astype(np.float64), second.astype(np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    if np.mean(np.isfinite(a) ^ np.isfinite(b)) > STRAY:
        return np.inf
    a, b = a[known], b[known]
    most = LARGE * float(np.median(np.maximum(np.abs(a), np.abs(b)))) if a.size else 0.0
    if most:
        a, b = a.clip(-most, most), b.clip(-most, most)
    scale = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    return float(np.linalg.norm(a - b)) / scale if scale else 0.0
