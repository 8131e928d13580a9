"""Steps that a mask leaves idle: when that is proved, when it must be checked, when it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prism_jax.ir.idle import Idle, cutting, every_row
from prism_jax.ir.masks import atoms
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Reduce, Tensor
from prism_jax.ir.sgraph import Accumulator, Loop
from tests.emit.graphs import Case, attention, load, mul, op

ROW, KEY = Axis("i", 40), Axis("j", 40)
HERE, THERE = Iota(ROW), Iota(KEY)


def integer(value: int) -> Const:
    return Const(value, "int32")


def loop_of(case: Case) -> Loop:
    (kernel,) = case.sgraph.kernels
    (loop,) = kernel.loops
    return loop


MASKS: dict[str, tuple[Node, bool]] = {
    "causal": (op("le", THERE, HERE), True),
    "causal with earlier keys": (op("le", THERE, op("add", HERE, integer(3))), True),
    "strictly causal: the first row has none": (op("lt", THERE, HERE), False),
    "shifted back: the first rows have none": (op("le", THERE, op("sub", HERE, integer(2))), False),
    "window": (
        op("and", op("le", THERE, HERE), op("gt", THERE, op("sub", HERE, integer(9)))),
        True,
    ),
    "empty window": (op("and", op("le", THERE, HERE), op("gt", THERE, HERE)), False),
    "suffix": (op("ge", THERE, HERE), True),
    "beyond the keys": (op("ge", THERE, op("add", HERE, integer(1))), False),
    "one position": (op("eq", THERE, HERE), True),
    "a condition on rows alone": (
        op("and", op("le", THERE, HERE), op("ge", HERE, integer(1))),
        False,
    ),
    "a condition on rows that holds": (
        op("and", op("le", THERE, HERE), op("ge", HERE, integer(0))),
        True,
    ),
}


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_row_agrees_with_looking_at_every_row(name: str) -> None:
    mask, answer = MASKS[name]
    known = atoms(mask)
    assert known is not None
    i, j = np.arange(40)[:, None], np.arange(40)[None, :]
    holds = np.ones((40, 40), bool)
    for atom in known:
        holds &= atom.of(ROW) * i + atom.of(KEY) * j + atom.constant >= 0
    assert bool(holds.any(axis=1).all()) is answer
    assert every_row(known, KEY) is answer


@pytest.mark.parametrize("fill", [-math.inf, -1e30])
def test_float16_products_are_proved(fill: float) -> None:
    """|q k| <= 64 * 65504^2 is nowhere near -1e30, and every causal row has an element."""
    found = cutting(loop_of(attention(2, 40, 40, 64, "float16", fill=fill)))
    assert found is not None
    assert found.idle == Idle()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("fill", [-math.inf, -1e30])
def test_wide_ranges_are_checked_at_run_time(dtype: str, fill: float) -> None:
    """Their products may be -1e30 or less: then the masked keys have weight."""
    found = cutting(loop_of(attention(2, 40, 40, 64, dtype, fill=fill)))
    assert found is not None
    ((name, floor),) = found.idle.checks
    assert name == "m"
    assert floor > fill


def masked(mask: Node, values: Node, fill: float, use: str = "exp") -> Loop:
    """max and sum of exp over the keys, of masked values."""
    return masked_term(op("where", mask, values, fill), use)


def masked_term(chosen: Node, use: str = "exp") -> Loop:
    top = Accumulator("m", "max", chosen, (ROW,))
    shifted = op("sub", chosen, top.carried("new"))
    factor = op("exp", op("sub", top.carried("old"), top.carried("new")))
    summand = op(use, shifted)
    total = Accumulator("l", "sum", summand, (ROW,), rescale=factor, depends=("m",))
    return Loop(KEY, 8, (top, total))


def scores(dtype: str = "float16") -> Node:
    return load(Tensor("x", (40, 40), dtype), ROW, KEY)


CAUSAL = op("le", THERE, HERE)
SMALL = op("cast", load(Tensor("n", (40, 40), "int8"), ROW, KEY), parameter="float32")
"""Values of which the range is known."""


def test_a_bias_may_be_infinite() -> None:
    """A load that is no factor of a product may hold minus infinity: nothing is proved of it."""
    found = cutting(masked(CAUSAL, scores(), -1e30))
    assert found is not None
    assert found.idle.checks


def test_a_row_without_elements_is_checked() -> None:
    proved = cutting(masked(CAUSAL, SMALL, -1e30))
    assert proved is not None
    assert proved.idle == Idle()
    checked = cutting(masked(op("lt", THERE, HERE), SMALL, -1e30))
    assert checked is not None
    assert checked.idle.checks


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (masked(CAUSAL, scores(), -1e30, "cos"), "a cosine of a large number is no zero"),
        (masked(CAUSAL, scores(), -100.0), "exp(-100 - m) is no zero"),
        (masked(op("le", mul(THERE, 2), HERE), scores(), -1e30), "not the axis itself"),
        (masked(op("le", Load(Tensor("n", (), "int32"), ()), THERE), scores(), -1e30), "loaded"),
    ],
    ids=["cos", "small fill", "multiple", "loaded"],
)
def test_what_is_refused(loop: Loop, why: str) -> None:
    assert cutting(loop) is None, why


def summed(summand: Node, over: Axis = KEY, kept: tuple[Axis, ...] = (ROW,)) -> Loop:
    return Loop(over, 8, (Accumulator("l", "sum", summand, kept),))


def test_where_the_mask_chooses_zero_nothing_is_checked() -> None:
    """A gradient's where(mask, ..., 0), over keys and over queries."""
    chosen = mul(op("where", CAUSAL, op("exp", scores()), 0.0), scores())
    for loop in (summed(chosen), summed(chosen, ROW, (KEY,))):
        found = cutting(loop)
        assert found is not None
        assert found.idle == Idle()
    assert cutting(summed(op("add", chosen, 1.0))) is None
    assert cutting(summed(op("exp", chosen))) is None


@pytest.mark.parametrize("fill", [-math.inf, -1e30])
def test_a_maximum_found_before_is_looked_at_before_the_loop(fill: float) -> None:
    top, total = (load(Tensor(name, (40,), "float32"), ROW) for name in ("top", "total"))
    chosen = op("where", CAUSAL, scores(), fill)
    weight = op("div", op("exp", op("sub", chosen, top)), total)
    for loop in (summed(weight), summed(weight, ROW, (KEY,))):
        found = cutting(loop)
        assert found is not None
        ((node, floor),) = found.idle.rows
        assert node is top
        assert floor > fill
        assert not found.idle.checks
    whole = load(Tensor("t", (40, 40), "float32"), ROW, KEY)
    for other in (op("sub", chosen, whole), op("sub", top, chosen), op("add", chosen, top)):
        assert cutting(summed(op("exp", other))) is None
    running = Accumulator("m", "min", scores(), (ROW,)).carried("new")
    assert cutting(summed(op("exp", op("sub", chosen, running)))) is None


def test_sums_that_a_constant_changes_are_not_cut() -> None:
    """-1e30 itself adds up, and so does exp(0)."""
    for summand in (op("where", CAUSAL, scores(), -1e30),
                    op("exp", mul(op("where", CAUSAL, scores(), -1e30), 1e-30))):  # fmt: skip
        total = Accumulator("l", "sum", summand, (ROW,))
        top = Accumulator("m", "max", op("where", CAUSAL, scores(), -1e30), (ROW,))
        assert cutting(Loop(KEY, 8, (top, total))) is None


def test_smallest_and_best_are_not_cut() -> None:
    chosen = op("where", CAUSAL, scores(), -1e30)
    for monoid, index in (("min", None), ("argmax", "int32"), ("prod", None)):
        loop = Loop(KEY, 8, (Accumulator("a", monoid, chosen, (ROW,), index_sort=index),))
        assert cutting(loop) is None


def test_a_sum_that_is_not_rescaled_to_zero_is_not_cut() -> None:
    """What the masked steps before a row's first element left must vanish with it."""
    loop = masked(CAUSAL, scores(), -1e30)
    top, total = loop.accumulators
    for rescale in (op("sub", top.carried("old"), top.carried("new")), Const(1.0)):
        changed = Accumulator("l", "sum", total.summand, (ROW,), rescale=rescale, depends=("m",))
        assert cutting(Loop(KEY, 8, (top, changed))) is None


def test_where_x_is_not_finite() -> None:
    """Zero times a load that may be infinite is no zero, unless it is a factor of a product."""
    weight = load(Tensor("w", (40,), "float16"), KEY)
    real = op("cast", THERE, parameter="float32")
    loop = masked(CAUSAL, SMALL, -1e30)
    top, total = loop.accumulators
    for factor, answer in ((weight, True), (op("exp", weight), False), (op("sin", real), True)):
        summand = mul(factor, total.summand)
        weighted = Accumulator("l", "sum", summand, (ROW,), total.rescale, depends=("m",))
        assert (cutting(Loop(KEY, 8, (top, weighted))) is not None) is answer


@pytest.mark.parametrize("monoid", ["min", "max"])
def test_a_mask_of_what_a_reduction_binds_proves_nothing_of_rows(monoid: str) -> None:
    """Every head has a key, but no key is every head's: the least over heads is all -1e30."""
    head = Axis("h", 2)
    first = mul(Iota(head), integer(4))
    last = op("le", THERE, op("add", first, integer(1)))
    mask = op("and", op("ge", THERE, first), last)
    assert every_row(atoms(mask) or (), KEY)
    least = Reduce(monoid, (head,), op("where", mask, SMALL, -1e30))
    found = cutting(masked_term(least))
    assert found is not None
    assert found.idle.checks
