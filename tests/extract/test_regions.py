"""Cutting: steps compute what the function computes, convex, ordered, equal layers cut alike."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_jax import compat
from prism_jax.extract import Equations, Region, extract
from prism_jax.extract.inline import inline
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Iota, Tensor
from tests.extract.oracle import cut_agrees, draw, run_steps

W = jnp.asarray(draw((4, 4), "float32", seed=3))
X = jnp.asarray(draw((6, 4), "float32"))


def kinds(cut: Any) -> str:
    """R for a region, e for a run of equations."""
    return "".join("R" if isinstance(step, Region) else "e" for step in cut.steps)


def sizes(tensor: Tensor) -> tuple[int, ...]:
    return tuple(size for size in tensor.shape if isinstance(size, int))


def norm(x: Any, scale: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale


def layer(x: Any, p: Any) -> Any:
    n, d = x.shape
    h = norm(x, p["g1"])
    q, k, v = ((h @ p[name]).reshape(n, 4, d // 4) for name in ("q", "k", "v"))
    scores = jnp.einsum("nhd,mhd->hnm", q, k) / np.sqrt(d // 4)
    scores = jnp.where(jnp.tril(jnp.ones((n, n), bool)), scores, -1e9)
    mixed = jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores), v).reshape(n, d)
    x = x + mixed @ p["o"]
    return x + jax.nn.gelu(norm(x, p["g2"]) @ p["w1"]) @ p["w2"]


def parameters(d: int, seed: int) -> dict[str, Any]:
    shapes = dict.fromkeys("qkvo", (d, d)) | {"g1": (d,), "g2": (d,), "w1": (d, 4 * d)}
    shapes["w2"] = (4 * d, d)
    return {
        k: jnp.asarray(draw(s, "float32", seed + n) * 0.1)
        for n, (k, s) in enumerate(shapes.items())
    }


def network(x: Any, layers: Any) -> Any:
    for p in layers:
        x = layer(x, p)
    return x


# -- steps compute what the function computes ------------------------------------------------


def test_one_region_for_a_small_function() -> None:
    cut = cut_agrees(lambda x, w: jax.nn.softmax(x @ w), X, W)
    assert kinds(cut) == "R"
    (region,) = cut.regions
    assert region.name == region.program.name == "f"
    assert [t.name for t in region.program.inputs] == ["x", "w"]


def test_the_program_of_a_region_computes_the_region() -> None:
    closed = jax.make_jaxpr(network)(X, [parameters(4, n) for n in range(2)])
    for region in extract(closed, None, "f").regions:
        inputs = [np.asarray(draw(sizes(t), t.dtype)) for t in region.program.inputs]
        want = jax.jit(lambda *v, r=region: compat.evaluate(r.jaxpr, *v))(*inputs)
        names = [t.name for t in region.program.inputs]
        got = evaluate(region.program, dict(zip(names, inputs, strict=True)))
        for w, g in zip(want, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4)


def test_boundaries_between_regions() -> None:
    def sorting(x: Any) -> Any:
        for _ in range(3):
            x = jnp.sort(jax.nn.softmax(x @ W))
        return x

    cut = cut_agrees(sorting, X)
    assert kinds(cut) == "ReReRe"
    assert [r.name for r in cut.regions] == ["f_0", "f_1", "f_2"]
    assert cut.regions[0].program.digest == cut.regions[1].program.digest
    assert cut.refused == ("sort has no rule",)


def test_no_path_leaves_a_region_and_comes_back() -> None:
    """The sum needs the sort of the product: they cannot be in the region of the product."""
    cut = cut_agrees(lambda x: (y := jax.nn.softmax(x @ W)) + jnp.sort(y) @ W, X)
    assert kinds(cut) == "ReR"


def test_boundaries_that_do_not_depend_on_a_region_go_before_it() -> None:
    cut = cut_agrees(lambda x: jax.nn.softmax(jnp.exp(x) @ W) @ jnp.sort(W), X)
    assert kinds(cut) == "eR"


def test_literals_constants_and_inputs_as_outputs() -> None:
    table, scale = jnp.asarray(np.arange(4.0, dtype=np.float32)), jnp.float32(3.0)

    @jax.jit
    def several(x: Any, y: Any) -> Any:
        return x, y @ y.T, y @ y.T, 3.0, jnp.sort(y)

    cut = cut_agrees(lambda x: (several(x, x * scale), jax.nn.softmax(x + table), 2.0, x, table), X)
    assert cut.regions
    for region in cut.regions:
        assert not compat.constants(region.jaxpr)
        # a number that the function closes over is a number in the program, not an input
        assert all(tensor.shape != () for tensor in region.program.inputs)


def test_functions_without_regions_are_left_as_they_are() -> None:
    fun = jax.jit(lambda x: jnp.sort(x) + 1)
    closed = jax.make_jaxpr(lambda x: fun(x) * 2)(X)
    (step,) = extract(closed, None, "f").steps
    assert isinstance(step, Equations)
    assert list(map(id, step.eqns)) == list(map(id, closed.jaxpr.eqns))
    empty = extract(jax.make_jaxpr(lambda x: x)(X), None, "f")
    assert not empty.regions


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: x * 2 + 1,  # XLA fuses a few elementwise equations by itself
        lambda x: x @ x.T,  # nothing beside one product
        lambda x: x.sum(),
        lambda x: jnp.exp(x[0, 0]) * jax.nn.sigmoid(x[1, 1]) + 2,  # numbers
    ],
)
def test_trivial_runs_stay_with_xla(fun: Any) -> None:
    assert not extract(jax.make_jaxpr(fun)(X), None, "f").regions


def test_effects_keep_their_order() -> None:
    seen: list[str] = []

    def tell(what: str, x: Any) -> None:
        jax.debug.callback(lambda value: seen.append(f"{what}{int(value)}"), x, ordered=True)

    def chatty(x: Any) -> Any:
        y = jax.nn.softmax(x @ W) * 0 + 1
        tell("a", y[0, 0])
        tell("b", jnp.int32(2))
        z = jax.nn.softmax(jnp.sort(y) @ W) * 0 + 3
        tell("c", z[0, 0])
        return z @ W

    closed = jax.make_jaxpr(chatty)(X)
    cut = extract(closed, None, "f")
    assert len(cut.regions) >= 2

    jax.block_until_ready(jax.jit(lambda x: run_steps(closed, cut, [x]))(X))
    jax.effects_barrier()
    assert seen == ["a1", "b2", "c3"]


def test_custom_rules_stay_in_the_region() -> None:
    @jax.custom_vjp
    def double(x: Any) -> Any:
        return x * 2

    double.defvjp(lambda x: (x * 2, None), lambda _, g: (g * 100,))
    closed = jax.make_jaxpr(lambda x: jax.nn.softmax(double(x) @ W))(X)
    (region,) = extract(closed, None, "f").regions
    names = [eqn.primitive.name for eqn in region.jaxpr.eqns]
    assert "custom_vjp_call" in names
    values = {2: (X, W), 1: (X,)}[len(region.invars)]
    got = jax.grad(lambda *v: compat.evaluate(region.jaxpr, *v)[0][0, 0])(*values)
    plain = jax.grad(lambda x: jax.nn.softmax(2 * x @ W)[0, 0])(X)
    np.testing.assert_allclose(got, 50 * plain, rtol=1e-5)


def test_masks_and_transposes_are_repeated_not_handed_over() -> None:
    """A mask made once is arithmetic in every region that reads it."""

    def masked(x: Any) -> Any:
        mask = jnp.tril(jnp.ones((4, 4), bool))
        for _ in range(2):
            x = jnp.sort(jnp.where(mask, jax.nn.softmax(x.T @ x), 0.0))
        return x

    cut = cut_agrees(masked, X)
    assert len(cut.regions) == 2
    for region in cut.regions:
        assert [t.dtype for t in region.program.inputs] == ["float32"]
        assert any(isinstance(node, Iota) for node in region.program.nodes)


def test_indexing_a_computed_table_often_is_cut() -> None:
    """100 rows of a product of 4 rows: the product is made once, not once per row asked for."""
    many = jnp.zeros((100,), jnp.int32)
    cut = cut_agrees(lambda x, i: jax.nn.softmax(jnp.tanh(x @ W)[i] * 2), X[:4], many)
    assert len(cut.regions) == 2
    few = cut_agrees(lambda x, i: jax.nn.softmax(jnp.tanh(x @ W)[i] * 2), X[:4], many[:3])
    assert len(few.regions) == 1


# -- large jaxprs -------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", [False, True])
def test_equal_layers_give_equal_programs(gradient: bool) -> None:
    layers = [parameters(8, 0) for _ in range(24)]
    x = jnp.asarray(draw((6, 8), "float32"))
    fun = jax.grad(lambda x, p: network(x, p).sum(), argnums=(0, 1)) if gradient else network
    closed = jax.make_jaxpr(fun)(x, layers)
    cut = extract(closed, None, "net")
    assert all(isinstance(step, Region) for step in cut.steps)
    assert len(cut.regions) >= 24
    digests = {region.program.digest for region in cut.regions}
    assert len(digests) <= (10 if gradient else 3)
    assert max(len(region.program.nodes) for region in cut.regions) < 200


def test_extraction_is_fast() -> None:
    layers = [parameters(8, 0) for _ in range(24)]
    closed = jax.make_jaxpr(network)(jnp.ones((6, 8)), layers)
    assert len(inline(closed).jaxpr.eqns) > 1000
    spent: list[float] = []
    for _ in range(2):  # the machine may be busy, too
        start = time.process_time()
        extract(closed, None, "net")
        spent.append(time.process_time() - start)
    assert min(spent) < 1.0


def test_network_agrees() -> None:
    layers = [parameters(8, n) for n in range(2)]
    x = jnp.asarray(draw((6, 8), "float32"))
    cut_agrees(network, x, layers)
    cut_agrees(jax.grad(lambda x, p: jnp.sin(network(x, p)).sum(), argnums=(0, 1)), x, layers)
    step = jax.checkpoint(layer)
    cut_agrees(jax.grad(lambda x: jnp.sin(step(x, layers[0])).sum()), x)


def test_updates_of_separate_arrays_are_separate_regions() -> None:
    """An optimiser's step over many arrays is as many programs, equal for equal shapes."""

    def adam(params: Any, grads: Any, m: Any, v: Any, t: Any) -> Any:
        def one(p: Any, g: Any, m: Any, v: Any) -> Any:
            g = g / jnp.maximum(1.0, jnp.sqrt(jnp.sum(g * g)))
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            return p - m / (1 - 0.9**t) / (jnp.sqrt(v / (1 - 0.99**t)) + 1e-8), m, v

        return [one(*each) for each in zip(params, grads, m, v, strict=True)]

    arrays = [jnp.ones((3, 4)), jnp.ones((3, 4)), jnp.ones((5,))]
    cut = cut_agrees(adam, arrays, arrays, arrays, arrays, jnp.float32(3))
    assert len(cut.regions) == 3
    assert len({region.program.digest for region in cut.regions}) == 2


# -- random programs -----------------------------------------------------------------------------


@settings(max_examples=settings().max_examples // 3)
@given(st.data())
def test_random_programs_keep_their_value(data: Any) -> None:
    """Random graphs of liftable equations, boundaries and nested calls."""
    operations = {
        "softmax": lambda a, b: jax.nn.softmax(a + b),
        "product": lambda a, b: a @ b / 4,
        "sort": lambda a, b: jnp.sort(a),
        "cumulate": lambda a, b: jnp.cumsum(a, 0) / 4,
        "nested": lambda a, b: jax.jit(lambda x, y: (x, jnp.sort(y), x * y))(a, b)[2],
        "passes": lambda a, b: jax.jit(lambda x, y: (y, x))(a, b)[0],
        "norm": lambda a, b: norm(a, b[0]),
        "gather": lambda a, b: a[jnp.argsort(b[0])],
        "mask": lambda a, b: jnp.where(jnp.tri(4, dtype=bool), a, b.T),
    }
    graph = data.draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(operations)), st.integers(0, 99), st.integers(0, 99)),
            min_size=1,
            max_size=14,
        )
    )

    def fun(x: Any) -> Any:
        values = [x, x.T]
        for name, a, b in graph:
            values.append(operations[name](values[a % len(values)], values[b % len(values)]))
        return values[-3:]

    cut_agrees(fun, W, tolerance=1e-4)
