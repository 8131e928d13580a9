"""The operator table: no cell is empty, and what the columns say is true of float64 evaluation."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from prism_jax.ir import ranges
from prism_jax.ir.field import Field
from prism_jax.ir.nodes import REAL
from prism_jax.ir.ops import MONOIDS, OPS
from prism_jax.ir.ranges import Range
from prism_jax.ir.residues import FIELD, PAIR, Outside

PARAMETERS = {
    "integer_pow": (-3, -2, -1, 0, 1, 2, 3, 4),
    "cast": ("float16", "bfloat16", "int32", "bool", "uint8"),
    "reduce_precision": ((5, 10), (8, 7)),
}
SORTS = {
    "real": (REAL,),
    "integer": ("int32", "uint8"),
    "number": (REAL, "int32", "uint8"),
    "bits": ("bool", "int32", "uint8"),
    "any": (REAL, "bool", "int32"),
    "choice": (REAL, "int32"),
}
ROWS = [
    (name, sort, parameter)
    for name, row in OPS.items()
    for sort in SORTS[row.accepts]
    for parameter in PARAMETERS.get(name, (None,))
    if not (isinstance(parameter, int) and parameter < 0 and sort != REAL)
]
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    -3.0,
    700.0,
    -750.0,
    1e-300,
    1e300,
    -1e300,
    math.inf,
    -math.inf,
]
REALS = st.one_of(st.sampled_from(EDGES), st.floats(-10, 10), st.floats(allow_nan=False))


def _argument_sorts(row, sort):
    return ("bool", sort, sort) if row.accepts == "choice" else (sort,) * row.arity


def _value(sort):
    if sort == REAL:
        return REALS
    if sort == "bool":
        return st.booleans()
    info = np.iinfo(sort)
    return st.one_of(
        st.integers(-3 if info.min else 0, 20), st.integers(int(info.min), int(info.max))
    )


def _between(low, x, high):
    return ranges._key(low) <= ranges._key(x) <= ranges._key(high)


@pytest.mark.parametrize("row", OPS.values(), ids=lambda r: r.name)
def test_no_cell_of_an_operator_is_empty(row):
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        assert value is not None, field.name
        assert value != "", field.name
    assert row.accepts in SORTS
    assert row.cost in ("free", "add", "mul", "special", "slow")
    assert len(row.monotone) == row.arity
    assert OPS[row.name] is row
    for text in (row.triton, row.jnp):
        assert all(f"{{{n}}}" in text for n in range(row.arity)) or text.strip("{}").isidentifier()


def test_the_side_tables_have_a_row_for_every_operator_and_no_other():
    assert set(FIELD) == set(ranges.RANGES) == set(OPS)


@pytest.mark.parametrize("row", MONOIDS.values(), ids=lambda r: r.name)
def test_no_cell_of_a_monoid_is_empty(row):
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        combining = field.name in ("triton", "jnp") and row.name.startswith("arg")
        assert (value is not None and value != "") or combining, field.name


@pytest.mark.parametrize("name", OPS)
@given(data=st.data())
def test_ranges_contain_what_is_computed(name, data):
    """Draw intervals, a point in each, and compute: the result lies where the row says."""
    _, sort, parameter = data.draw(st.sampled_from([r for r in ROWS if r[0] == name]))
    row = OPS[name]
    arrays, intervals = [], []
    for argument in _argument_sorts(row, sort):
        ends = sorted(data.draw(st.tuples(_value(argument), _value(argument))), key=ranges._key)
        edges = [x for x in EDGES if _between(ends[0], x, ends[1])] if argument == REAL else []
        inside = data.draw(st.sampled_from([*ends, *edges]))
        intervals.append(Range(float(ends[0]), float(ends[1])))
        arrays.append(np.asarray(inside, np.float64 if argument == REAL else np.dtype(argument)))
    result = float(row.f64(parameter, *arrays))
    result_sort = row.sort(tuple(_argument_sorts(row, sort)), parameter)
    found = ranges.of_operator(name, result_sort, parameter, tuple(intervals))
    if math.isnan(result):
        assert found.nan
        return
    slack = 0.0
    if math.isfinite(result) and result_sort == REAL:
        slack = 4 * math.ulp(abs(result)) + sys.float_info.min  # ends may overflow or underflow
    assert found.low <= result + slack
    assert result - slack <= found.high
    if result == 0 and result_sort == REAL and math.copysign(1, result) < 0:
        assert found.may_be_negative_zero


@pytest.mark.parametrize("sort", ["int8", "int16", "int32", "int64", "uint8", "uint64"])
def test_integer_division_truncates_everywhere(sort):
    """Also at the ends, where the least integer has no absolute value; by zero it is -1."""
    info = np.iinfo(sort)
    ends = [info.min, info.min + 1, -7, -2, -1, 0, 1, 2, 3, 7, info.max - 1, info.max]
    values = [v for v in ends if info.min <= v]
    pairs = np.array(list(itertools.product(values, values)), sort)
    found = OPS["div"].f64(None, pairs[:, 0], pairs[:, 1])
    for (a, b), quotient in zip(pairs.tolist(), found.tolist(), strict=True):
        exact = -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        assert quotient == (exact - info.min) % (1 << info.bits) + info.min, (a, b)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(found, lax.div(*(jnp.asarray(x) for x in pairs.T)))


def test_numbers_that_the_long_profile_found():
    assert OPS["reduce_precision"].f64((5, 10), np.float64(5e-324)) == 0.0
    assert OPS["reduce_precision"].f64((11, 52), np.float64(2.0**-1022)) == 2.0**-1022
    assert ranges.of_monoid("prod", REAL, Range(0.0, 1e300), 3).nan
    assert ranges.of_monoid("prod", REAL, Range(1e-300, math.inf), 3).nan


@pytest.mark.parametrize("name", [name for name, row in OPS.items() if any(row.monotone)])
@given(data=st.data())
def test_monotone_means_monotone(name, data):
    _, sort, parameter = data.draw(st.sampled_from([r for r in ROWS if r[:2] == (name, REAL)]))
    row = OPS[name]
    sorts = _argument_sorts(row, sort)
    values = [data.draw(_value(s)) for s in sorts]
    for n, direction in enumerate(row.monotone):
        if direction == 0:
            continue
        other = [*values]
        other[n] = data.draw(_value(sorts[n]))
        one, two = (values, other) if values[n] <= other[n] else (other, values)
        low, high = (float(row.f64(parameter, *map(np.asarray, v))) for v in (one, two))
        infinite = math.isinf(low) or math.isinf(high)
        pole = 0 in (one[n], two[n]) and infinite  # 1 / sqrt(-0) is -inf
        if math.isnan(low) or math.isnan(high) or low == high or pole:
            continue
        largest = max(abs(low), abs(high))
        slack = 4 * math.ulp(largest) if math.isfinite(largest) else 0.0
        assert (high - low) * direction >= -slack


@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min"])
@given(st.lists(st.one_of(st.sampled_from(EDGES), st.floats(-3, 3)), min_size=1, max_size=5))
def test_monoid_ranges_contain_what_is_computed(monoid, values):
    body = Range(min(values, key=ranges._key), max(values, key=ranges._key))
    with np.errstate(all="ignore"):
        result = float(MONOIDS[monoid].reduce(np.asarray(values), (0,)))
    for count in (len(values), None):
        found = ranges.of_monoid(monoid, REAL, body, count)
        if math.isnan(result):
            assert found.nan
        else:
            slack = 8 * math.ulp(abs(result)) if math.isfinite(result) else 0
            assert found.low <= result + slack
            assert result - slack <= found.high


def test_softmax_denominators_are_known_to_be_positive():
    """The signed zeros earn their keep: 1 / sum(exp(x)) is not negative, 1 / sum(x) may be."""
    weight = ranges.of_operator("exp", REAL, None, (Range(-math.inf, math.inf),))
    total = ranges.of_monoid("sum", REAL, weight, None)
    assert ranges.of_operator("div", REAL, None, (weight, total)).low == 0.0
    assert ranges.of_operator("div", REAL, None, (weight, Range(-0.0, 1.0))).low == -math.inf


FIELD_NUMBERS = st.integers(0, 2**32 - 1)


@given(FIELD_NUMBERS)
def test_field_laws(seed):
    """The laws over the reals that the pair of fields must keep."""
    field, numbers = Field(seed), np.random.default_rng(seed)
    x, y, z = (field.random((40,), numbers) for _ in range(3))

    def do(op, *args, p=None):
        return field.pointwise(op, p, args)

    one = field.const(1.0, REAL)
    laws = [
        (do("mul", x, do("add", y, z)), do("add", do("mul", x, y), do("mul", x, z))),
        (do("div", do("mul", x, y), y), x),
        (do("sub", x, x), field.const(0.0, REAL)),
        (do("integer_pow", x, p=-2), do("div", one, do("mul", x, x))),
        (do("exp", do("sub", x, y)), do("div", do("exp", x), do("exp", y))),
        (do("exp2", do("add", x, y)), do("mul", do("exp2", x), do("exp2", y))),
        (do("integer_pow", do("sqrt", x), p=2), x),
        (do("mul", do("rsqrt", x), do("sqrt", x)), one),
        (do("integer_pow", do("cbrt", x), p=3), x),
        (do("mul", do("sqrt", x), do("sqrt", y)), do("sqrt", do("mul", x, y))),
        (do("max", x, do("max", y, z)), do("max", do("max", z, x), y)),
        (do("min", x, x), x),
        (do("logistic", x), do("div", do("exp", x), do("add", one, do("exp", x)))),
        (
            do("tanh", x),
            do(
                "div",
                do("expm1", do("add", x, x)),
                do("add", do("expm1", do("add", x, x)), field.const(2.0, REAL)),
            ),
        ),
        (do("exp", field.const(-math.inf, REAL)), field.const(0.0, REAL)),
        (do("max", x, field.identity("max", REAL)), x),
        (do("mul", field.const(0.1, REAL), field.const(10.0, REAL)), one),
    ]
    for number, (left, right) in enumerate(laws):
        assert field.same(left, right).all(), number
        assert field.defined(left).any(), number
    wrong = do("mul", x, y), do("add", x, y)
    assert not field.same(*wrong).any()


OUTSIDE = {
    "rem",
    "sign",
    "pow",
    "log",
    "log1p",
    "sin",
    "cos",
    "tan",
    "erf",
    "erfc",
    "floor",
    "ceil",
}
_INTEGERS = {"and", "or", "xor", "not", "cast", "reduce_precision"}
_SHIFTS = {"shift_left", "shift_right_arithmetic", "shift_right_logical"}


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_field_cell_computes_or_says_why_not(name):
    row, field = OPS[name], Field(0)
    x = field.random((5,), np.random.default_rng(0))
    args = [x] * row.arity
    if row.accepts == "choice":
        args[0] = np.asarray([True, False, True, True, False])
    parameter = PARAMETERS.get(name, (None,))[0]
    if name in OUTSIDE | _INTEGERS | _SHIFTS:
        with pytest.raises(Outside, match=r"\w"):
            row.field(field.roots, parameter, *args)
        return
    result = row.field(field.roots, parameter, *args)
    assert result.shape == (5,)
    assert result.dtype in (PAIR, np.dtype(bool))


def test_exponentials_do_not_nest_in_the_field():
    field = Field(0)
    x = field.random((3,), np.random.default_rng(0))
    with pytest.raises(Outside, match="exponential of an exponential"):
        field.pointwise("exp", None, [field.pointwise("exp", None, [x])])


def test_field_matrix_products_and_reductions_agree_with_scalars():
    field, numbers = Field(0), np.random.default_rng(0)
    a, b = field.random((3, 4), numbers), field.random((4, 2), numbers)
    product = field.matmul(a, b)
    terms = field.pointwise("mul", None, [a[:, :, None], b[None]])
    assert (product == field.reduce("sum", REAL, terms, (1,))).all()
    a[1, 2] = field.const(math.inf, REAL)
    assert (field.defined(field.matmul(a, b)).all(1) == [True, False, True]).all()
    assert field.reduce("argmax", REAL, b, (0,)).tolist() == np.argmax(b["p"], 0).tolist()


def test_sorts_of_results_agree_with_float64_evaluation():
    for name, sort, parameter in ROWS:
        row = OPS[name]
        sorts = _argument_sorts(row, sort)
        arrays = [np.ones((2,), np.float64 if s == REAL else np.dtype(s)) for s in sorts]
        result = np.asarray(row.f64(parameter, *arrays))
        expected = row.sort(tuple(sorts), parameter)
        assert result.dtype == (np.float64 if expected == REAL else np.dtype(expected)), name
        assert len(inspect.signature(row.f64).parameters) >= 2
