"""The ranking, judged: places and losses of hand-made measurements."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from prism_jax.instantiate.quality import TOP, judge, summarise

TIMES = st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0)), min_size=2, max_size=30)


def test_places_and_losses() -> None:
    rows = [("a", (), None, estimate, estimate * 2) for estimate in (3.0, 1.0, 2.0)]
    rows += [("b", (), None, float(n), 20.0 - n) for n in range(1, 13)]
    rows += [("alone", (), None, 1.0, 1.0)]
    a, b = judge(rows)
    assert (a.kernel, a.tried, a.place, a.loss) == ("a", 3, 1, 1.0)
    assert (b.kernel, b.tried, b.place, b.loss) == ("b", 12, 12, 19 / 8)
    summary = summarise([(a, b), (), (a,)])
    assert summary is not None
    assert (summary.rows, summary.rows_in_top) == (2, 0.5)
    assert (summary.kernels, summary.in_top) == (3, 2 / 3)
    assert math.isclose(summary.loss, (19 / 8) ** (1 / 3))
    assert "67% of 3 kernels, and for all kernels of 50% of 2 rows" in str(summary)
    assert "1.33x" in str(summary)
    assert summarise(()) is None
    assert summarise([()]) is None


def test_the_kernels_of_the_plan_chosen() -> None:
    """A kernel of a plan that was not chosen may be ranked badly; the row is judged without it."""
    rows = [("good", (), None, estimate, estimate) for estimate in (1.0, 2.0)]
    rows += [("bad", (), None, float(n), 20.0 - n) for n in range(1, 13)]
    good, bad = judge(rows, chosen={"good"})
    assert (good.chosen, bad.chosen) == (True, False)
    [wrong] = judge(rows[2:], chosen={"bad"})
    summary = summarise([(good, bad), (wrong,), (bad,)])
    assert summary is not None
    assert (summary.plans, summary.plans_in_top) == (2, 0.5)
    assert (summary.rows, summary.rows_in_top) == (3, 0.0)
    assert "for all kernels of the plan chosen in 50% of 2 rows" in str(summary)


@given(TIMES)
def test_the_place_is_that_of_the_fastest(times: list[tuple[float, float]]) -> None:
    (quality,) = judge(("k", (), None, *pair) for pair in times)
    order = [measured for _, measured in sorted(times, key=lambda t: t[0])]
    assert order[quality.place - 1] == min(order)
    assert quality.loss == order[0] / min(order) >= 1.0
    summary = summarise([(quality,)])
    assert summary is not None
    assert summary.in_top == (quality.place <= TOP)
