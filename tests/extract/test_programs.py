"""Whole functions: their programs have the right value, share what is equal, and read well."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.extract import lift
from prism_jax.ir.nodes import Load, Node, Pointwise, Precision, Reduce, at
from prism_jax.ir.program import Program
from prism_jax.ir.text import print_program
from tests.extract.oracle import agree, draw, lifted


def attention(q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.T / jnp.sqrt(1.0 * q.shape[-1])
    return jax.nn.softmax(scores, axis=-1) @ v


def causal(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, heads: int = 2) -> Any:
    n, d = x.shape
    q, k, v = ((x @ w).reshape(n, heads, d // heads) for w in (wq, wk, wv))
    scores = jnp.einsum("nhd,mhd->hnm", q, k)
    scores = jnp.where(jnp.tril(jnp.ones((n, n), bool)), scores, -jnp.inf)
    mixed = jnp.einsum("hnm,mhd->nhd", jax.nn.softmax(scores), v)
    return x + mixed.reshape(n, d) @ wo


def layernorm(x: Any, scale: Any, bias: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5) * scale + bias


def mlp(x: Any, w1: Any, w2: Any) -> Any:
    return jax.nn.gelu(x @ w1) @ w2 + jax.nn.silu(x)


Q, K, V = draw((6, 4)), draw((5, 4), seed=1), draw((5, 3), seed=2)
X = draw((6, 4))
SQUARE = [draw((4, 4), seed=n) for n in range(4)]
FUNCTIONS = {
    "attention": (attention, (Q, K, V)),
    "causal": (causal, (X, *SQUARE)),
    "layernorm": (layernorm, (X, draw((4,)), draw((4,), seed=1))),
    "mlp": (mlp, (X, draw((4, 7)), draw((7, 4)))),
    "logsumexp": (lambda x: jax.nn.logsumexp(x @ x.T, axis=1), (X,)),
    "cross entropy": (
        lambda x, y: -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean(),
        (X, np.array([0, 3, 1, 2, 2, 0])),
    ),
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_value(name: str) -> None:
    fun, args = FUNCTIONS[name]
    agree(fun, *args)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"cross entropy"}))
def test_gradient(name: str) -> None:
    fun, args = FUNCTIONS[name]
    every = tuple(range(len(args)))
    agree(jax.grad(lambda *a: jnp.sum(jnp.sin(fun(*a))), argnums=every), *args, tolerance=1e-10)


def test_second_derivative_and_vmap() -> None:
    hessian = jax.hessian(lambda q: jnp.sum(attention(q, Q[:2], Q[:2]) ** 2))
    agree(hessian, Q[:3, :4], tolerance=1e-10)
    agree(jax.vmap(attention, in_axes=(0, None, None)), draw((2, 6, 4)), K, V)


# -- shared sub-expressions --------------------------------------------------------------------


def _reductions(program: Program, monoid: str) -> list[Reduce]:
    return [n for n in program.nodes if isinstance(n, Reduce) and n.monoid == monoid]


def test_softmax_shares_its_scores() -> None:
    """Maximum and sum go over the same scores under binders of their own: one body."""
    program = lifted(attention, Q, K, V)
    (maximum,) = _reductions(program, "max")
    exps = [n for n in program.nodes if isinstance(n, Pointwise) and n.op == "exp"]
    assert len(exps) == 1
    (difference,) = exps[0].args
    assert isinstance(difference, Pointwise)
    assert difference.args[0] is maximum.body
    assert difference.args[1] is maximum
    total = next(n for n in _reductions(program, "sum") if n.body is exps[0])
    assert total.axes == maximum.axes
    assert len([n for n in program.nodes if isinstance(n, Load)]) == 3


def test_a_binder_is_primed_only_where_its_name_is_free() -> None:
    program = lifted(causal, X, *SQUARE)
    (maximum,) = _reductions(program, "max")
    names = {axis.name for axis in program.axes}
    (key,) = maximum.axes
    assert key.name == "i1"
    assert names >= {"i", "i1"}
    assert not any(name.startswith("i2") for name in names)


def test_h_ht_is_two_nodes_of_one_tensor() -> None:
    program = lifted(lambda x, w: (x @ w) @ (x @ w).T, X, SQUARE[0])
    body = program.outputs[0].value
    assert isinstance(body, Reduce)
    product = body.body
    assert isinstance(product, Pointwise)
    left, right = product.args
    assert left is not right
    assert {a.name for a in left.axes_free} == {"i", "k"}
    assert {a.name for a in right.axes_free} == {"i1", "k"}


def test_merged_dimension_has_one_axis_per_part() -> None:
    """What is read whole and in heads is one tensor, so both use the parts."""
    program = lifted(lambda x, w: ((y := x @ w), y.reshape(6, 2, 2).sum(1)), X, SQUARE[0])
    whole, parts = (store.value for store in program.outputs)
    assert isinstance(parts, Reduce)
    assert parts.body is whole
    terms = program.outputs[0].index[1].terms
    assert [coefficient for _, coefficient in terms] == [2, 1]


def test_names_are_those_of_the_user() -> None:
    text = print_program(lifted(attention, Q, K, V))
    assert text.startswith("program f(q: f32[6,4], k: f32[5,4], v: f32[5,3]) compute f32 {")
    assert "store out: f32[6,3]" in text
    assert [t.name for t in lifted(lambda p: p["a"] + p["b"], {"a": X, "b": X}).inputs] == [
        "x0",
        "x1",
    ]


# -- constants, dtypes, precision --------------------------------------------------------------


def test_closed_over_arrays_are_inputs_and_numbers_are_constants() -> None:
    table, scale = jnp.asarray(SQUARE[0]), jnp.float32(3.0)
    program = lift(jax.make_jaxpr(lambda x: x @ table * scale)(X), "f")
    assert [t.name for t in program.inputs] == ["x", "constant0"]
    agree(lambda x: x @ SQUARE[0] + np.float64(2.5), X)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_compute_dtype(dtype: str, expected: str) -> None:
    with jax.enable_x64(True):
        program = lift(jax.make_jaxpr(lambda x: x * 2)(jnp.zeros(3, dtype)), "f")
    assert program.compute == expected


def _precision(fun: Any, *args: Any) -> Precision | None:
    program = lifted(fun, *args)
    return next(n for n in program.nodes if isinstance(n, Reduce)).precision


def test_precision_records() -> None:
    half = jnp.zeros((4, 4), jnp.bfloat16)
    full = jnp.zeros((4, 4), jnp.float32)
    dot = jax.lax.dot
    assert _precision(dot, half, half) == Precision("bfloat16", "float32", "bfloat16", "default")
    wide = _precision(lambda x, y: dot(x, y, preferred_element_type=jnp.float32), half, half)
    assert wide == Precision("bfloat16", "float32", "float32", "default")
    for given, name in [("highest", "highest"), ("high", "tf32"), ("default", "default")]:
        found = _precision(lambda x, y, p=given: dot(x, y, precision=p), full, full)
        assert found == Precision("float32", "float32", "float32", name)
    pair = (jax.lax.Precision.DEFAULT, jax.lax.Precision.HIGHEST)
    found = _precision(lambda x, y: dot(x, y, precision=pair), full, full)
    assert found is not None
    assert found.algorithm == "highest"
    preset = jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3
    found = _precision(lambda x, y: dot(x, y, precision=preset), full, full)
    assert found is not None
    assert found.algorithm == "bf16_bf16_f32_x3"
    with jax.default_matmul_precision("float32"):
        found = _precision(dot, full, full)
    assert found is not None
    assert found.algorithm == "highest"


def test_sums_are_kept_as_wide_as_jax_keeps_them() -> None:
    half = jnp.zeros((4, 4), jnp.float16)
    assert _precision(lambda x: x.sum(1), half) == Precision(
        "float32", "float32", "float32", "highest"
    )
    # What a gradient sums of float16 terms is computed in the fusion that sums it, in float32.
    assert _precision(lambda x: jax.lax.reduce_sum(x, (1,)), half) == Precision(
        "float32", "float32", "float16", "highest"
    )


def _casts(program: Program) -> list[Node]:
    return [n for n in program.nodes if isinstance(n, Pointwise) and n.op == "cast"]


def test_casts_between_floats() -> None:
    half, full = jnp.zeros((4,), jnp.bfloat16), jnp.zeros((4,), jnp.float32)
    f32, bf16, f16 = jnp.float32, jnp.bfloat16, jnp.float16
    # up, and back to what the inputs have: rounding places are chosen at emission
    assert not _casts(lifted(lambda x: (jnp.exp(x.astype(f32)) * 2).astype(bf16) + x, half))
    # narrower than every input: opaque, unless the store rounds right away
    assert len(_casts(lifted(lambda x: jnp.exp(x.astype(bf16)), full))) == 1
    assert not _casts(lifted(lambda x: jnp.exp(x).astype(bf16), full))
    # neither float16 nor bfloat16 holds the other
    assert len(_casts(lifted(lambda x: jnp.exp(x.astype(f16)), half))) == 1
    # a deliberate rounding: the exact value is used beside the rounded one
    split = lifted(lambda x, y: (x - x.astype(bf16).astype(f32)) * y, full, half)
    assert len(_casts(split)) == 1
    fp8 = lifted(lambda x: x.astype(jnp.float8_e4m3fn).astype(f32) * 2, full)
    assert len(_casts(fp8)) == 1


def test_masks_and_static_indices_are_simple() -> None:
    """What the jaxpr writes with many equations is one comparison, and an affine index."""
    program = lifted(lambda x: jnp.tril(x), SQUARE[0])
    ops = [n.op for n in program.nodes if isinstance(n, Pointwise)]
    assert ops == ["ge", "where"]
    program = lifted(lambda x: jax.nn.softmax(x)[..., -1] + x[jnp.arange(6), 2], X)
    loads = [n for n in program.nodes if isinstance(n, Load)]
    assert {load.index[1] for load in loads if load.index[1].axis is None} == {at(3), at(2)}
    assert not any(load.index_nodes for load in loads)


# -- size and time -----------------------------------------------------------------------------


def test_lifting_is_fast() -> None:
    jaxpr = jax.make_jaxpr(jax.grad(lambda *a: attention(*a).sum(), argnums=(0, 1, 2)))(Q, K, V)
    lift(jaxpr, "warm")
    start = time.perf_counter()
    program = lift(jaxpr, "f")
    assert time.perf_counter() - start < 0.1
    assert len(program.nodes) < 60


def test_deep_jaxprs_need_no_deep_recursion() -> None:
    def deep(x: Any) -> Any:
        for n in range(1500):
            x = jnp.sin(x) * (n + 2.0)
        return x

    program = lifted(deep, X)
    assert len(program.nodes) > 3000
    assert len(program.digest) == 64


# -- a transformer block of installed libraries ------------------------------------------------


def test_equinox_block_and_its_gradient() -> None:
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 3)
    with jax.enable_x64(True):
        attend = eqx.nn.MultiheadAttention(2, 8, key=keys[0], dtype=jnp.float64)
        norm = eqx.nn.LayerNorm(8, dtype=jnp.float64)
        net = eqx.nn.MLP(8, 8, 16, 1, jax.nn.gelu, key=keys[1], dtype=jnp.float64)

        def block(model: Any, x: Any) -> Any:
            attend, norm, net = model
            y = jax.vmap(norm)(x)
            x = x + attend(y, y, y)
            return x + jax.vmap(net)(jax.vmap(norm)(x))

        params, static = eqx.partition((attend, norm, net), eqx.is_array)
        leaves, tree = jax.tree.flatten(params)

    def loss(x: Any, *leaves: Any) -> Any:
        model = eqx.combine(jax.tree.unflatten(tree, leaves), static)
        return jnp.sum(jnp.sin(block(model, x)))

    args = (draw((5, 8)), *[np.asarray(leaf) for leaf in leaves])
    agree(loss, *args, tolerance=1e-10)
    agree(jax.grad(loss, argnums=tuple(range(len(args)))), *args, tolerance=1e-10)


def test_flax_block_and_its_gradient() -> None:
    nnx = pytest.importorskip("flax.nnx")
    with jax.enable_x64(True):
        rngs = nnx.Rngs(0)
        kind = {"param_dtype": jnp.float64, "dtype": jnp.float64, "rngs": rngs}

        class Block(nnx.Module):  # pyright: ignore[reportUntypedBaseClass]
            def __init__(self) -> None:
                self.norm = nnx.LayerNorm(8, **kind)
                self.attend = nnx.MultiHeadAttention(2, 8, decode=False, **kind)
                self.up = nnx.Linear(8, 16, **kind)
                self.down = nnx.Linear(16, 8, **kind)

            def __call__(self, x: Any) -> Any:
                x = x + self.attend(self.norm(x))
                return x + self.down(nnx.gelu(self.up(x)))

        graph, state = nnx.split(Block())
        leaves, tree = jax.tree.flatten(state)

    def loss(x: Any, *given: Any) -> Any:
        merged = list(leaves)
        free = [n for n, leaf in enumerate(leaves) if leaf.dtype == jnp.float64]
        for n, leaf in zip(free, given, strict=True):
            merged[n] = leaf
        return jnp.sum(jnp.sin(nnx.merge(graph, jax.tree.unflatten(tree, merged))(x)))

    weights = [np.asarray(leaf) for leaf in leaves if leaf.dtype == jnp.float64]
    args = (draw((1, 5, 8)), *weights)
    # flax's attention takes its softmax in float32
    agree(loss, *args, tolerance=1e-6)
    agree(jax.grad(loss, argnums=tuple(range(len(args)))), *args, tolerance=1e-6)
