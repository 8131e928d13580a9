"""Under prism.jit nothing breaks: values bit for bit (where nothing is replaced), dtypes, weak
types and trees as under jax.jit, against the trivial optimiser and against the real one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import pipeline
from tests.nothing_breaks_cases import CASES
from tests.stub_stages import STUB

SEARCH = {"seconds": 2.0}


@pytest.fixture(params=["stub", "real"])
def stages(request, monkeypatch) -> str:
    """Which optimiser runs; both raise where the users' default would warn."""
    if request.param == "stub":
        monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)
    # jax keeps what it traced for a function and its options: the two must not serve each other.
    monkeypatch.setitem(SEARCH, "seconds", {"stub": 2.0, "real": 2.5}[request.param])
    return request.param


def strict() -> prism.Options:
    return prism.Options(on_error="raise", tune="off", search_seconds=SEARCH["seconds"])


def leaves(tree: Any) -> list[Any]:
    return [jax.random.key_data(x) if _is_key(x) else x for x in jax.tree.leaves(tree)]


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def assert_same(got: Any, want: Any, bitwise: bool = True) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(leaves(got), leaves(want), strict=True):
        assert type(a) is type(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert getattr(a, "weak_type", None) == getattr(b, "weak_type", None)
        x, y = np.asarray(a), np.asarray(b)
        if bitwise:
            assert x.tobytes() == y.tobytes()
        else:
            np.testing.assert_allclose(x.astype(float), y.astype(float), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(CASES))
def test_same_as_jax_jit(name: str, stages: str) -> None:
    fun, args, keywords = CASES[name]()
    want = jax.jit(fun, **keywords)(*args)
    fun, args, keywords = CASES[name]()  # a donated argument is gone
    optimised = prism.jit(fun, options=strict(), **keywords)
    got = optimised(*args)
    args = CASES[name]()[1]
    replaced = any(region.replaced for region in prism.explain(optimised, *args).regions)
    assert_same(got, want, bitwise=stages == "stub" or not replaced)
    if not replaced:  # then XLA is given the very same program
        plain = jax.jit(fun, **keywords).trace(*args).jaxpr
        assert str(optimised.trace(*args).jaxpr) == str(plain)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


DIFFERENTIABLE = (
    "scan", "cumulative", "gather", "dynamic_slices", "convolution", "checkpointed", "custom_vjp",
    "custom_jvp", "cond", "half_precision", "linear_algebra", "nested_jit", "take_along_axis",
    "zero_size_axes", "returns_inputs", "strings_of_views", "pooling", "associative_scan",
)  # fmt: skip


def _scalar(fun: Any, args: Any) -> Any:
    """The sum of all floating outputs as a function of the floating arguments."""
    places = [i for i, a in enumerate(args) if jnp.issubdtype(jnp.result_type(a), jnp.floating)]

    def loss(*moving: Any) -> Any:
        values = list(args)
        for place, value in zip(places, moving, strict=True):
            values[place] = value
        outs = [x for x in jax.tree.leaves(fun(*values)) if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(jnp.sum(jnp.sin(x.astype(jnp.float32))) for x in outs)

    return loss, [args[place] for place in places]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_outside(name: str, stages: str) -> None:
    fun, args, keywords = CASES[name]()
    if any(isinstance(a, dict) for a in args):
        args = tuple(a["k"] if isinstance(a, dict) else a for a in args)
        fun = lambda x, k: (x, {"k": k}, (x, x))  # noqa: E731
    plain, moving = _scalar(jax.jit(fun, **keywords), args)
    ours, _ = _scalar(prism.jit(fun, options=strict(), **keywords), args)
    places = tuple(range(len(moving)))
    assert_same(jax.grad(ours, places)(*moving), jax.grad(plain, places)(*moving), bitwise=False)
    tangents = [jnp.ones_like(x) for x in moving]
    if name == "custom_vjp":
        for f in (plain, ours):
            with pytest.raises(TypeError, match=r"can't apply forward-mode autodiff \(jvp\)"):
                jax.jvp(f, tuple(moving), tuple(tangents))
        return
    assert_same(
        jax.jvp(ours, tuple(moving), tuple(tangents)),
        jax.jvp(plain, tuple(moving), tuple(tangents)),
        bitwise=False,
    )


@pytest.mark.parametrize(
    "name", ["scan", "gather", "sort", "cumulative", "fft", "cond", "integers"]
)
def test_vmap_outside(name: str, stages: str) -> None:
    fun, args, keywords = CASES[name]()
    batched = [jnp.stack([jnp.asarray(a)] * 3) for a in args]
    plain = jax.vmap(jax.jit(fun, **keywords))(*batched)
    ours = jax.vmap(prism.jit(fun, options=strict(), **keywords))(*batched)
    assert_same(ours, plain, bitwise=False) if name != "fft" else assert_close_complex(ours, plain)


def assert_close_complex(got: Any, want: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


# -- what a function does besides returning values -------------------------------------------------


def test_prints_happen_once_and_in_order(stages: str, capfd) -> None:
    @prism.jit(options=strict())
    def f(x):
        jax.debug.print("first {}", x, ordered=True)
        y = jnp.sin(x) * 2
        jax.debug.print("second {}", y, ordered=True)
        return y + 1

    f(1.0)
    jax.effects_barrier()
    assert capfd.readouterr().out.split()[::2] == ["first", "second"]


def test_io_callback_runs_once_a_call(stages: str) -> None:
    seen: list[float] = []

    @prism.jit(options=strict())
    def f(x):
        y = jnp.cos(x) * 3
        jax.experimental.io_callback(lambda a: seen.append(float(a)), None, y, ordered=True)
        return y

    for _ in range(2):
        f(0.0)
    jax.effects_barrier()
    assert seen == [3.0, 3.0]


def test_callbacks_survive_transformations(stages: str, capfd) -> None:
    def f(x):
        jax.debug.print("x {}", x)
        return jnp.sum(x * x)

    x = jnp.arange(2.0)
    assert_same(jax.grad(prism.jit(f, options=strict()))(x), jax.grad(f)(x), bitwise=False)
    jax.vmap(prism.jit(f, options=strict()))(jnp.ones((2, 2)))
    jax.effects_barrier()
    assert (
        len(capfd.readouterr().out.splitlines()) == 4
    )  # two in grad (ours and plain), two in vmap


def test_the_function_is_traced_once(stages: str) -> None:
    count = 0

    def f(x):
        nonlocal count
        count += 1
        return x @ x

    ours = prism.jit(f, options=strict())
    ours(jnp.ones((2, 2)))
    ours(jnp.zeros((2, 2)))
    assert count == 1


def test_donated_buffer_is_gone(stages: str) -> None:
    x = jnp.ones((256,))
    prism.jit(lambda x: x + 1, donate_argnums=0, options=strict())(x)
    assert x.is_deleted()


def test_nested_prism_jit(stages: str) -> None:
    inner = prism.jit(lambda x, w: jnp.tanh(x @ w), options=strict())
    outer = lambda f: lambda x, w: f(f(x, w), w).sum()  # noqa: E731
    x = jnp.ones((3, 3)) / 3
    want = jax.jit(outer(jax.jit(inner.__wrapped__.__wrapped__)))(x, x)
    assert_same(prism.jit(outer(inner), options=strict())(x, x), want, bitwise=False)


def test_ahead_of_time(stages: str) -> None:
    f = prism.jit(lambda x: {"y": jnp.exp(x) + 1}, options=strict())
    x = jnp.arange(3.0)
    lowered = f.lower(jax.ShapeDtypeStruct((3,), jnp.float32))
    assert "func.func public @main" in lowered.as_text()
    assert_same(lowered.compile()(x), f(x))
    assert jax.tree.structure(f.eval_shape(x)) == jax.tree.structure({"y": 0})
    assert f.trace(x).jaxpr.out_avals[0].shape == (3,)


def test_ahead_of_time_for_another_platform(stages: str) -> None:
    f = prism.jit(lambda x: jnp.exp(x) + x @ x, options=strict())
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    text = f.trace(x).lower(lowering_platforms=("cpu", "cuda", "tpu")).as_text()
    assert "stablehlo.dot_general" in text


def test_symbolic_shapes(stages: str) -> None:
    from jax import export

    f = prism.jit(lambda x: jnp.tanh(x @ x.T), options=strict())
    spec = jax.ShapeDtypeStruct(export.symbolic_shape("n, 4"), jnp.float32)
    exported = export.export(f)(spec)
    x = jnp.ones((3, 4))
    assert_same(exported.call(x), jax.jit(lambda x: jnp.tanh(x @ x.T))(x), bitwise=False)


def test_references_can_be_written(stages: str) -> None:
    @prism.jit(options=strict())
    def f(ref, x):
        ref[...] = ref[...] + jnp.sin(x)
        return x * 2

    ref = jax.new_ref(jnp.zeros(3))
    out = f(ref, jnp.ones(3))
    assert_same(out, jnp.ones(3) * 2)
    np.testing.assert_allclose(ref[...], np.sin(np.ones(3)), rtol=1e-6)


def test_double_precision(stages: str) -> None:
    with jax.enable_x64(True):
        x = jnp.linspace(0, 1, 6).reshape(2, 3)
        f = lambda x: (jax.nn.softmax(x @ x.T), x.astype(jnp.float32), jnp.arange(3))  # noqa: E731
        assert_same(prism.jit(f, options=strict())(x), jax.jit(f)(x), bitwise=stages == "stub")


def test_disable_jit(stages: str) -> None:
    seen: list[type] = []

    def f(x):
        seen.append(type(x))
        return x + 1 if x > 0 else x

    with jax.disable_jit():
        assert float(prism.jit(f, options=strict())(jnp.float32(1))) == 2.0
    assert not issubclass(seen[0], jax.core.Tracer)


def test_debug_nans_finds_the_users_nan(stages: str) -> None:
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        prism.jit(lambda x: jnp.log(x) * 2, options=strict())(jnp.float32(-1))
    with jax.debug_nans(True):
        prism.jit(lambda x: jnp.var(x), options=strict())(jnp.ones(3))


def test_empty_program(stages: str) -> None:
    assert prism.jit(lambda: None, options=strict())() is None
    assert prism.jit(lambda x: x, options=strict())({}) == {}


def test_key_reuse_of_closures(stages: str) -> None:
    # The same function object over a closure that changes: each trace sees the closure of its time.
    scale = 1.0

    def f(x):
        return x * scale

    ours = prism.jit(f, options=strict())
    assert float(ours(jnp.float32(2))) == 2.0
    scale = 3.0
    assert float(ours(jnp.ones((1,)))[0]) == 3.0
