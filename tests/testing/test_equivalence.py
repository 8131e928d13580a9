"""`assert_equivalent` accepts what is equal, rejects what is not, and shrinks."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import prism_jax as prism
from prism_jax.extract import NotLiftable, lift
from prism_jax.ir.check import check_program
from prism_jax.testing import JaxFunction, arrays, assert_equivalent, jax_functions

NUMBERS = np.random.default_rng(0)
X = NUMBERS.normal(size=(6, 16)).astype(np.float32)


def softmax(x):
    e = jnp.exp(x - jnp.max(x, -1, keepdims=True))
    return e / jnp.sum(e, -1, keepdims=True)


def test_outputs_may_be_scalars():
    assert_equivalent(lambda x: x.sum(), lambda x: x.sum(0).sum(), X)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(lambda x: x.sum(), lambda x: x.sum() * 1.01, X)


@given(arrays((3, 8)))
def test_softmax_is_softmax(x):
    assert_equivalent(softmax, jax.nn.softmax, x)


def test_strategies_may_be_given_directly():
    assert_equivalent(jnp.add, lambda x, y: y + x, arrays((3,)), arrays((3,)), max_examples=20)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(jnp.add, jnp.subtract, arrays((3,)), np.ones(3, np.float32))


def test_a_softmax_without_its_maximum_is_refused():
    def bad(x):
        return jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True)

    assert_equivalent(softmax, bad, X)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(softmax, bad, 100 * X)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (lambda x: (x.sum(-1),), "the outputs are"),
        (lambda x: x.sum(0), r"output 0 is float32\[16\], not float32\[6\]"),
        (lambda x: x.sum(-1).astype(jnp.float16), r"output 0 is float16\[6\], not float32\[6\]"),
        (lambda x: x.sum(-1).at[2].set(jnp.nan), "output 0 differs"),
        (lambda x: x.sum(-1) * 1.001, r"(?s)output 0 differs: .* error .*program"),
    ],
)
def test_differences_are_said(candidate, message):
    with pytest.raises(AssertionError, match=message):
        assert_equivalent(lambda x: x.sum(-1), candidate, X)


def test_pytrees_constants_integers_and_no_outputs():
    table = jnp.asarray(NUMBERS.normal(size=(16, 3)).astype(np.float32))

    def f(tree):
        return {"out": tree["x"] @ table, "best": jnp.argmax(tree["x"], -1)}

    def g(tree):
        return {"out": jnp.einsum("ij,jk->ik", tree["x"], table), "best": (-tree["x"]).argmin(-1)}

    assert_equivalent(f, g, {"x": X})
    assert_equivalent(lambda x: (), lambda x: (), X)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(f, lambda t: {**g(t), "best": jnp.zeros(6, "int32")}, {"x": X})


def test_functions_that_cannot_be_lifted_are_their_own_oracle():
    with pytest.raises(NotLiftable):
        lift(jax.make_jaxpr(lambda x: jnp.sort(x, -1))(X), "sort")

    def sorts(x):
        return jnp.sort(x, -1).sum(-1), jnp.argsort(x, -1), x[:0]

    assert_equivalent(sorts, jax.jit(sorts), X)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(sorts, lambda x: (sorts(x)[0] * 1.01, *sorts(x)[1:]), X)
    with pytest.raises(AssertionError, match="output 1 differs"):
        assert_equivalent(sorts, lambda x: (sorts(x)[0], -sorts(x)[1], x[:0]), X)
    with pytest.raises(AssertionError, match="NaN or infinities"):
        assert_equivalent(sorts, lambda x: (sorts(x)[0] * jnp.nan, *sorts(x)[1:]), X)


@settings(max_examples=15)
@given(st.data())
def test_random_functions_run_lift_and_agree_with_their_oracle(data):
    f = data.draw(jax_functions())
    args = data.draw(f.inputs())
    closed = jax.make_jaxpr(f)(*args)
    assert tuple(v.aval.shape for v in closed.jaxpr.invars) == tuple(s for s, _ in f.arguments)
    with contextlib.suppress(NotLiftable):
        check_program(lift(closed, "f"))
    assert_equivalent(f, jax.jit(f), *args)


def test_functions_shrink_to_a_readable_one():
    quiet = settings(
        max_examples=500,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    f = find(jax_functions(), lambda f: "@" in f.source, settings=quiet)
    assert len(f.source.split("\n")) <= 4
    assert str(f).startswith("def f(x):  # x: float32[1")


def test_functions_are_values():
    one, two = (JaxFunction("def f(x):\n    return x + 1", (((2,), "float32"),)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    with pytest.raises(TypeError):
        one(jnp.zeros(2), 3)


def test_a_wrong_rewrite_is_shown_on_a_minimal_program():
    """A compiler that takes tanh for sin: the test of it is three lines, what it finds is small."""

    def compiled(f: JaxFunction) -> JaxFunction:
        return JaxFunction(f.source.replace("jnp.tanh", "jnp.sin"), f.arguments)

    phases = (Phase.generate, Phase.shrink)

    @settings(max_examples=1000, derandomize=True, database=None, deadline=None, phases=phases)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        f = data.draw(jax_functions())
        assert_equivalent(f, compiled(f), *data.draw(f.inputs()))

    with pytest.raises(AssertionError, match="output 0 differs") as caught:
        check()
    shown = "\n".join(caught.value.__notes__)
    source = shown[shown.index("Draw 1: ") : shown.index("Draw 2: ")].removeprefix("Draw 1: ")
    lines = [line.strip() for line in source.strip().split("\n")]
    assert lines[0] == "def f(x):  # x: float32[1]", shown
    assert any("jnp.tanh" in line for line in lines), shown
    assert len(lines) <= 4, shown
    program = str(caught.value).split("\n", 1)[1]
    assert program.count("tanh") == 1
    assert len(program.strip().split("\n")) <= 8, program


def test_a_function_under_prism_jit_is_tested_in_three_lines():
    fast = prism.jit(softmax)
    assert_equivalent(softmax, fast, arrays((4, 8)), max_examples=10)
    with pytest.raises(AssertionError, match="output 0 differs"):
        assert_equivalent(softmax, lambda x: fast(x) * 1.001, X[:4, :8])


def test_shape_and_dtype_that_changed_places_are_named() -> None:
    swapped: Any = ("float32", (8, 64))
    with pytest.raises(TypeError, match=r"shape first.*arrays\(\(8, 64\), 'float32'\)"):
        assert_equivalent(jnp.exp, jnp.exp, arrays(*swapped))
