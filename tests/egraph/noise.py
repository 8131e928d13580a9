"""How far a program's outputs move when every value in it is rounded a little differently.

Two equal programs round in other places. Where the difference decides something (the place of a
maximum among ties, a floor, a comparison) their outputs differ by more than rounding, and neither
is wrong. Such elements show here: the same program, evaluated again with noise on every value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.program import Program
from prism_jax.verify.luck import Noisy

Array: TypeAlias = Any
NOISE = 1e-9
RUNS = 8


def sensitivity(program: Program, inputs: dict[str, Array]) -> list[Array]:
    """Per output element: the largest move in `RUNS` noisy runs; infinite where it is no number."""
    want = evaluate(program, inputs)
    moved = [np.zeros(np.shape(w)) for w in want]
    for seed in range(RUNS):
        noisy = evaluate(program, inputs, domain=Noisy(NOISE, np.random.default_rng(seed)))
        for total, a, b in zip(moved, want, noisy, strict=True):
            with np.errstate(all="ignore"):
                step = np.abs(np.asarray(a, float) - np.asarray(b, float))
            np.maximum(total, np.where(np.isfinite(step), step, np.inf), out=total)
    return moved


def assert_same(
    program: Program,
    given: dict[str, Array],
    want: Sequence[Array],
    found: Sequence[Array],
    note: object,
) -> None:
    """The outputs found are those of the program, as far as the program itself decides them."""
    moved: list[Array] = []
    for n, (a, b) in enumerate(zip(found, want, strict=True)):
        a, b = np.asarray(a, float), np.asarray(b, float)
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), str(note))
        finite = np.isfinite(b)
        scale = 1 + np.max(np.abs(b[finite]), initial=0)
        error = np.abs(a[finite] - b[finite])
        if (error > 1e-9 * scale).any():
            moved = moved or sensitivity(program, given)
            allowed = 100 * moved[n][finite] + 1e-9 * scale
            assert (error <= allowed).all(), note
