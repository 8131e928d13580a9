"""A tape repeats what was recorded, whatever is asked for first, and with little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prism_jax.ir import tape as module
from prism_jax.ir.counts import ceil_div, maximum, minimum, rounded_up, select
from prism_jax.ir.tape import Tape, Values


def steps(n: Any, t: Any, s: Any) -> list[Any]:
    """Numbers that are made of each other."""
    blocks = ceil_div(n, t)
    shared = blocks * s + 1
    rest = maximum(shared, minimum(n, 3 * t)) - s
    waves = rounded_up(rest / 7.0)
    return [blocks, shared, rest, waves, select(waves < blocks, waves * 2.0, n / t)]


SIZES = np.arange(1, 300).reshape(-1, 1)
SPLITS = np.arange(2, 9)


@pytest.fixture
def recorded() -> tuple[Tape, list[Any]]:
    tape = Tape()
    return tape, steps(tape.symbol("n"), tape.symbol("t", 2), tape.symbol("s", 1))


def expected(n: int) -> list[Any]:
    return steps(n, SIZES, SPLITS)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (3, 0, 4, 1, 3)])
@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_any_order(
    recorded: tuple[Tape, list[Any]],
    order: tuple[int, ...],
    kept: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where an array was dropped after its last use, or for want of memory; and again at other
    sizes, where what was computed for a number is known.
    """
    monkeypatch.setattr(module, "KEPT_BYTES", kept)
    tape, numbers = recorded
    for n in (1000, 37):
        known = {"n": n, "t": SIZES, "s": SPLITS}
        values = Values(tape, known.__getitem__)
        for place in order:
            [got] = values.of([numbers[place]])
            np.testing.assert_array_equal(got, expected(n)[place])
        everything = Values(tape, known.__getitem__).of([numbers[place] for place in order])
        for place, got in zip(order, everything, strict=True):
            np.testing.assert_array_equal(got, expected(n)[place])


def test_what_only_one_number_needs_is_dropped(recorded: tuple[Tape, list[Any]]) -> None:
    """Of the large arrays on the way to a number, none of which another number needs."""
    tape, numbers = recorded
    values = Values(tape, {"n": 1000, "t": SIZES, "s": SPLITS}.__getitem__)
    [got] = values.of([numbers[3]])
    large = [v for v in values._values if isinstance(v, np.ndarray) and v.size == got.size]
    assert len(large) == 1
    assert values._held < 2 * got.nbytes


def test_numbers_where_tiles_are_numbers(recorded: tuple[Tape, list[Any]]) -> None:
    tape, numbers = recorded
    values = Values(tape, {"n": 1000, "t": 16, "s": 4}.__getitem__, arrays=False)
    assert values.of(numbers) == steps(1000, 16, 4)
    assert [values.everything()[n.place] for n in numbers] == steps(1000, 16, 4)
