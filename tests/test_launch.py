"""`prism_call` and `prism_tangent`: every rule, against the function itself."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prism_jax import compat, errors
from prism_jax.launch import AsWritten, Executable, FrozenJaxpr, bind, freeze
from tests.stub_stages import StubRegion, planned


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / np.sqrt(q.shape[-1]), axis=-1) @ v


def several(x, n, w):
    """Outputs of every kind: moving, integer, an input, a constant, a value another one needs."""
    e = jnp.exp(x)
    return e, n + 1, x, 2.5, jnp.tanh(e @ w), jnp.sum(e) * n


def loss(fun: Any) -> Any:
    def scalar(*args: Any) -> Any:
        outs = [o for o in jax.tree.leaves(fun(*args)) if jnp.issubdtype(o.dtype, jnp.floating)]
        return sum(jnp.sum(jnp.sin(o)) for o in outs)

    return scalar


def arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def assert_close(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert getattr(a, "weak_type", False) == getattr(b, "weak_type", False)
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=2e-6)


QKV = arrays((16, 4), (12, 4), (12, 4))
X, W = arrays((3, 4), (4, 2))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_values(wrap: Any) -> None:
    assert_close(wrap(planned(attention))(*QKV), wrap(attention)(*QKV))
    assert_close(wrap(planned(several))(X, 3, W), jax.jit(several)(X, 3, W))


def test_what_is_linear_is_transposed_itself() -> None:
    """As solvers do it, without a JVP before."""

    def operator(v, k, scale):
        return scale * (k @ (k.T @ v)) + v

    (k, v) = arrays((12, 4), (12,))
    for wrap in (lambda f: f, jax.jit):
        ours = wrap(planned(operator))
        for plain, own in ((operator, ours), (jax.jit(operator), ours)):
            pulled = [jax.linear_transpose(lambda v, f=f: f(v, k, 2.0), v)(v) for f in (plain, own)]
            assert_close(*reversed(pulled))

        def solved(k, f=ours):
            solve = jax.scipy.sparse.linalg.gmres
            return solve(lambda x: f(x, k, 2.0), v, maxiter=3)[0].sum()

        want = jax.grad(functools.partial(solved, f=operator))(k)
        np.testing.assert_allclose(jax.grad(solved)(k), want, rtol=1e-3, atol=1e-4)


def test_several_inputs_and_outputs_are_transposed() -> None:
    def linear(a, x, b):
        return a * x + b, 3.0 * b, jnp.sum(x)

    (x, a, b) = arrays((3, 4), (3, 4), (3, 4))
    out = (a, b, jnp.float32(2.0))
    pulled = [
        jax.linear_transpose(lambda x, b, f=f: f(a, x, b), x, b)(out)
        for f in (linear, planned(linear))
    ]
    assert_close(*reversed(pulled))


TRANSFORMATIONS = {
    "grad": lambda f: jax.grad(loss(f), (0, 1, 2)),
    "value_and_grad": lambda f: jax.value_and_grad(loss(f)),
    "jvp": lambda f: lambda *a: jax.jvp(f, a, a),
    "linearize": lambda f: lambda *a: jax.linearize(f, *a)[1](*a),
    "jacfwd": lambda f: jax.jacfwd(f, 1),
    "jacrev": lambda f: jax.jacrev(f, 1),
    "hessian": lambda f: jax.hessian(loss(f), 2),
    "reverse_over_reverse": lambda f: jax.grad(
        lambda *a: jnp.sum(jax.grad(loss(f))(*a) ** 2), (0, 1)
    ),
    "reverse_over_forward": lambda f: jax.grad(
        lambda *a: jnp.sum(jax.jvp(f, a, a)[1] ** 2), (0, 2)
    ),
    "forward_over_forward": lambda f: lambda *a: jax.jvp(lambda *b: jax.jvp(f, b, b)[1], a, a)[1],
    "third_derivative": lambda f: jax.grad(
        lambda *a: jnp.sum(jax.hessian(lambda q: loss(f)(q[None], *a[1:]))(a[0][0]))
    ),
    "vmap": lambda f: (
        lambda q, k, v: jax.vmap(f, (0, None, 1))(
            jnp.stack([q, 2 * q]), k, jnp.stack([v, v + 1], 1)
        )
    ),
    "vmap_of_grad": lambda f: (
        lambda q, k, v: jax.vmap(jax.grad(loss(f), (0, 1)), (0, None, None))(
            jnp.stack([q, 2 * q]), k, v
        )
    ),
    "grad_of_vmap": lambda f: jax.grad(
        lambda q, k, v: jnp.sum(jax.vmap(f, (0, None, None))(jnp.stack([q, 2 * q]), k, v) ** 2),
        (0, 1),
    ),
    "vmap_of_vmap": lambda f: (
        lambda q, k, v: jax.vmap(jax.vmap(f, (0, None, None), 1), (None, 0, None))(
            q[:, None], jnp.stack([k, -k]), v
        )
    ),
    "vmap_of_jvp": lambda f: (
        lambda q, k, v: jax.vmap(lambda t: jax.jvp(f, (q, k, v), (t, k, v))[1])(
            jnp.stack([q, 2 * q])
        )
    ),
    "vmapped_linear_map": lambda f: (
        lambda q, k, v: jax.vmap(jax.linearize(f, q, k, v)[1])(
            jnp.stack([q, q]), jnp.stack([k, k]), jnp.stack([v, v])
        )
    ),
    "checkpoint": lambda f: jax.grad(loss(jax.checkpoint(f)), (0, 1, 2)),
    "checkpoint_policy": lambda f: jax.grad(
        loss(jax.checkpoint(f, policy=jax.checkpoint_policies.everything_saveable)), (0, 1)
    ),
    "scan": lambda f: jax.grad(
        lambda q, k, v: jnp.sum(
            lax.scan(lambda c, a: (f(c, k, v)[:, :4] + a, None), q, jnp.ones((3, 16, 4)))[0]
        ),
        (0, 1, 2),
    ),
    "vmap_of_grad_of_scan": lambda f: (
        lambda q, k, v: jax.vmap(
            jax.grad(
                lambda q: jnp.sum(lax.scan(lambda c, a: (f(c, k, v), None), q, None, length=2)[0])
            )
        )(jnp.stack([q, q]))
    ),
    "cond": lambda f: jax.grad(
        lambda q, k, v: jnp.sum(lax.cond(q[0, 0] > 0, f, lambda q, k, v: q, q, k, v))
    ),
    "linear_transpose": lambda f: (
        lambda q, k, v: jax.linear_transpose(jax.linearize(f, q, k, v)[1], q, k, v)(q)
    ),
    "partly_moving": lambda f: lambda q, k, v: jax.vjp(lambda k: f(q, k, v), k)[1](q),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations(name: str) -> None:
    ours, plain = (TRANSFORMATIONS[name](f) for f in (planned(attention), attention))
    assert_close(jax.jit(ours)(*QKV), jax.jit(plain)(*QKV))


@pytest.mark.parametrize("name", ["grad", "jvp", "vmap", "linear_transpose", "scan"])
def test_transformations_outside_jit(name: str) -> None:
    ours, plain = (TRANSFORMATIONS[name](f) for f in (planned(attention), attention))
    assert_close(ours(*QKV), jax.jit(plain)(*QKV))


@pytest.mark.parametrize("moving", [(0,), (2,), (0, 2)])
def test_outputs_of_every_kind(moving: tuple[int, ...]) -> None:
    args = (X, 3, W)
    f, g = planned(several), jax.jit(several)
    assert_close(jax.grad(loss(f), moving)(*args), jax.grad(loss(g), moving)(*args))
    zero = np.zeros((), jax.dtypes.float0)
    tangents = (X, zero, W * 2)
    assert_close(jax.jvp(f, args, tangents), jax.jvp(g, args, tangents))
    assert_close(jax.vjp(f, *args)[0], jax.vjp(g, *args)[0])
    cotangents = jax.tree.map(jnp.ones_like, g(*args))
    cotangents = tuple(
        np.zeros(c.shape, jax.dtypes.float0) if jnp.issubdtype(c.dtype, jnp.integer) else c
        for c in cotangents
    )
    got, want = jax.vjp(f, *args)[1](cotangents), jax.vjp(g, *args)[1](cotangents)
    assert [jax.typeof(a).dtype for a in got] == [jax.typeof(a).dtype for a in want]
    assert_close(got[0], want[0])
    assert_close(got[2], want[2])


def test_complex_numbers() -> None:
    def f(z, w):
        return jnp.exp(z) @ w, jnp.abs(z), (z * jnp.conj(z)).real

    z, w = X + 1j * X[::-1], W * (1 - 2j)
    got, want = jax.vjp(planned(f), z, w), jax.vjp(f, z, w)
    assert_close(got[0], want[0])
    cotangents = jax.tree.map(lambda a: a * 0.5 + 1, want[0])
    assert_close(got[1](cotangents), want[1](cotangents))
    g = lambda f: jax.grad(lambda z: jnp.sum(f(z, w)[0]), holomorphic=True)(z)  # noqa: E731
    assert_close(g(planned(f)), g(f))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_every_float(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        args = [jnp.asarray(a, dtype) for a in QKV]
        f = lambda q, k, v: jax.nn.softmax(q @ k.T * 0.5) @ v  # noqa: E731
        got, want = jax.vjp(planned(f), *args), jax.vjp(f, *args)
        for a, b in zip([got[0], *got[1](args[0])], [want[0], *want[1](args[0])], strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            tolerance = 30 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(
                np.asarray(a, float), np.asarray(b, float), rtol=tolerance, atol=tolerance
            )


def test_symbolic_zeros_reach_the_rules() -> None:
    def with_constant(f: Any) -> Any:
        return jax.grad(lambda q: jnp.sum(f(lax.stop_gradient(q), QKV[1], q[:12]) ** 2))

    assert_close(with_constant(planned(attention))(QKV[0]), with_constant(attention)(QKV[0]))
    constant = planned(lambda x: (jnp.sign(x), x))
    tangent = jax.jvp(constant, (X,), (X,))[1]
    assert_close(tangent, (jnp.zeros_like(X), X))


def residual_sizes(fun: Any, *args: Any) -> int:
    """Elements that reverse mode keeps between its two passes."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.vjp(fun, *args)[1]))


def test_residuals_of_attention_are_linear_in_its_length() -> None:
    sizes = []
    for n in (64, 128, 256):
        q, k, v = arrays((n, 8), (n, 8), (n, 8))
        ours = residual_sizes(jax.jit(planned(attention)), q, k, v)
        assert ours <= 4 * n * 8, "more than the inputs and the output"
        assert residual_sizes(jax.jit(attention), q, k, v) > n * n
        sizes.append(ours)
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


def test_residuals_leave_out_what_no_derivative_needs() -> None:
    x, w = arrays((64, 64), (64, 64))
    assert residual_sizes(jax.jit(lambda x: planned(jnp.matmul)(x, w)), x) == w.size
    # exp's derivative is its own value, an output of the region: the input need not be kept.
    jaxpr = jax.make_jaxpr(lambda x: jax.vjp(planned(lambda x: jnp.exp(x)), x)[1](x))(x)
    text = str(jaxpr)
    assert "exp" not in text.replace("<lambda>", "")
    assert residual_sizes(jax.jit(planned(lambda x: jnp.exp(x))), x) == x.size


def test_the_backward_pass_is_a_call_of_its_own() -> None:
    jaxpr = jax.make_jaxpr(jax.grad(loss(planned(attention)), (0, 1, 2)))(*QKV)
    names = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert names.count("prism_call") == 2
    assert "prism_tangent" not in names
    calls = [e.params["region"].name for e in jaxpr.eqns if e.primitive.name == "prism_call"]
    assert calls == ["attention", "attention_vjp"]


def test_rules_of_the_user_are_in_force() -> None:
    odd: Any = jax.custom_jvp(jnp.sin)
    odd.defjvp(lambda primals, tangents: (odd(primals[0]), 7.0 * tangents[0]))

    clipped: Any = jax.custom_vjp(lambda x: x * 1.0)
    clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (jnp.clip(g * x, -0.5, 0.5),))
    f = lambda x: clipped(odd(x) * 3) + odd(x)  # noqa: E731
    assert_close(jax.grad(loss(planned(f)))(X), jax.grad(loss(f))(X))
    assert_close(jax.jit(jax.grad(loss(planned(f))))(X), jax.grad(loss(f))(X))
    with pytest.raises(TypeError, match="can't apply forward-mode autodiff"):
        jax.jvp(planned(f), (X,), (X,))


def test_rules_with_effects_fall_back_to_evaluation(capfd) -> None:
    loud: Any = jax.custom_jvp(lambda x: x * 2)

    @loud.defjvp
    def _(primals, tangents):
        jax.debug.print("derivative")
        return loud(primals[0]), tangents[0] * 2

    assert_close(jax.jvp(planned(loud), (X,), (X,)), (X * 2, X * 2))
    assert_close(jax.grad(loss(planned(loud)))(X), 2 * jnp.cos(2 * X))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("derivative") == 2


# -- what is equal, and what is lowered ------------------------------------------------------------


def test_digests_tell_programs_apart() -> None:
    def digest(fun: Any, *args: Any) -> str:
        return FrozenJaxpr(jax.make_jaxpr(fun)(*args), "f").digest

    x = jnp.ones(3)
    same = digest(lambda x: x * 2.0, x)
    assert digest(lambda y: y * 2.0, x) == same
    table = np.arange(3, dtype=np.float32)
    others = [
        digest(lambda x: x * 3.0, x),
        digest(lambda x: x * 2.0, jnp.ones(4)),
        digest(lambda x: x * 2.0, 1.0),
        digest(lambda x: x * 2.0, jnp.ones(3, jnp.bfloat16)),
        digest(lambda x: 2.0 * x, x),
        digest(lambda x: x + 2.0, x),
        digest(lambda x: x * table, x),
        digest(lambda x: x * (table + 1), x),
        digest(lambda x: jnp.sum(x, 0), jnp.ones((3, 3))),
        digest(lambda x: jnp.sum(x, 1), jnp.ones((3, 3))),
        digest(lambda x: x[0], x),
        digest(lambda x: x[1], x),
        digest(lambda x: (x, x * 2.0), x),
        digest(lambda x: jax.jit(lambda y: y * 2.0)(x), x),
        digest(lambda x: lax.dot(x, x), x),
        digest(lambda x: lax.dot(x, x, precision="highest"), x),
        digest(lambda x: x * jnp.nan, x),
        digest(lambda x: x * -0.0, x),
        digest(lambda x: x * 0.0, x),
    ]
    assert len({same, *others}) == len(others) + 1


def test_equal_rules_of_different_objects_are_not_confused() -> None:
    def with_rule(scale: float) -> Any:
        f: Any = jax.custom_jvp(lambda x: x)
        f.defjvp(lambda primals, tangents: (f(*primals), tangents[0] * scale))
        return f

    one, two = with_rule(1.0), with_rule(2.0)
    assert float(jax.grad(planned(one))(1.0)) == 1.0
    assert float(jax.grad(planned(two))(1.0)) == 2.0


def test_open_regions_are_refused() -> None:
    def effect(x):
        jax.debug.print("{}", x)
        return x

    with pytest.raises(errors.OpenRegionError, match="f has 1 effect"):
        freeze(jax.make_jaxpr(effect)(1.0), "f")

    def outer(x):
        closed, _ = compat.trace_jit(lambda y: x + y, (1.0,), {})
        with pytest.raises(errors.OpenRegionError):
            freeze(closed, "f")
        return x

    jax.jit(outer)(1.0)


def test_executables_are_values() -> None:
    a, b = Executable("d", "jnp", lambda x: (x,)), Executable("d", "jnp", lambda x: (x,))
    assert a == b
    assert hash(a) == hash(b)
    assert repr(a) == "<jnp d>"
    assert Executable("e", "jnp", lambda x: (x,)) != a
    assert AsWritten() == AsWritten()


def _bind(backend: str, call: Any, **kw: Any) -> Any:
    closed = jax.make_jaxpr(lambda x: [jnp.sin(x)])(X)
    plan = Executable(f"{backend} {id(call)}", backend, call)
    return lambda x: bind(plan, StubRegion(closed, "sine"), x, **kw)[0]


def test_the_plan_is_what_runs_and_is_named_after_the_region() -> None:
    fun = _bind("jnp", lambda x: (jnp.sin(x) + 100,))
    np.testing.assert_allclose(jax.jit(fun)(X), np.sin(X) + 100, rtol=1e-6)
    np.testing.assert_allclose(fun(X), np.sin(X) + 100, rtol=1e-6)
    assert "sine" in jax.jit(fun).lower(X).as_text(debug_info=True)


def test_kernels_are_lowered_where_they_run_and_the_original_elsewhere() -> None:
    fun = jax.jit(_bind("triton", lambda x: (jnp.cos(x),)))
    text = fun.trace(X).lower(lowering_platforms=("cuda",)).as_text()
    assert "cosine" in text
    assert "sine" in fun.lower(X).as_text()
    np.testing.assert_allclose(fun(X), np.sin(X), rtol=1e-6)  # the region itself, on this CPU
    both = fun.trace(X).lower(lowering_platforms=("cpu", "cuda")).as_text()
    assert "cosine" in both
    assert "stablehlo.sine" in both


def test_lowering_failures_fall_back_or_raise() -> None:
    def broken(x):
        raise ValueError("no such kernel")

    errors.forget()
    with pytest.warns(errors.Fallback, match="left sine to XLA, because its launch stage failed"):
        got = jax.jit(_bind("jnp", broken))(X)
    np.testing.assert_allclose(got, np.sin(X), rtol=1e-6)
    with pytest.raises(errors.StageError, match="no such kernel"):
        jax.jit(_bind("jnp", broken, replan=AsWritten("raise")))(X)


def test_equal_regions_are_traced_once_for_lowering() -> None:
    count = 0

    def call(x):
        nonlocal count
        count += 1
        return (jnp.sin(x),)

    fun = _bind("jnp", call)
    jax.jit(lambda x: functools.reduce(lambda a, _: fun(a), range(8), x)).lower(X)
    assert count == 1


def test_unused_calls_are_removed() -> None:
    fun = _bind("jnp", lambda x: (jnp.sin(x),))

    def f(x):
        fun(x)
        return x + 1

    assert "sine" not in jax.jit(f).lower(X).as_text()


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P, NamedSharding, AxisType
from prism_jax import pipeline
from tests.stub_stages import STUB
import dataclasses
from types import SimpleNamespace
pipeline.default_stages = lambda: dataclasses.replace(
    STUB, emit=lambda o: SimpleNamespace(
        call=lambda *a: [x + 1000 for x in o.plan.call(*a)], source=""))
import prism_jax as prism
def f(x):
    return jnp.sin(x) @ jnp.cos(x).T
x = jnp.arange(32.0).reshape(8, 4) / 10
want = np.asarray(f(x))
def where(y):
    return "plan" if np.allclose(y, want + 1000, atol=1e-3) else (
        "original" if np.allclose(y, want, atol=1e-5) else "wrong")
auto = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
explicit = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
split = jax.device_put(x, NamedSharding(auto, P("d")))
out = prism.jit(f)(split)
print("one device", where(prism.jit(f)(x)))
print("split input", where(out), out.sharding.is_equivalent_to(jax.jit(f)(split).sharding, 2))
print("replicated input", where(prism.jit(f)(jax.device_put(x, NamedSharding(auto, P())))))
print("in_shardings", where(prism.jit(f, in_shardings=NamedSharding(auto, P("d")))(x)))
with jax.set_mesh(auto):
    print("mesh in force", where(prism.jit(f)(split)))
s = jax.device_put(x, NamedSharding(explicit, P("d", None)))
g = lambda x: jnp.sin(x) * 2 + 1
out = prism.jit(g)(s)
print("explicit", np.allclose(out, g(x)), out.sharding == jax.jit(g)(s).sharding)
def rows(x):
    return jnp.tanh(x) * 2
m = jax.shard_map(prism.jit(rows), mesh=auto, in_specs=P("d"), out_specs=P("d"))
print("shard_map", np.allclose(jax.jit(m)(x), rows(x) + 1000), np.allclose(m(x), rows(x) + 1000))
loss = lambda f: lambda x: jnp.sum(jnp.sin(jax.shard_map(
    f, mesh=auto, in_specs=P("d"), out_specs=P("d"))(x)))
pipeline.default_stages = lambda: STUB
pipeline.forget()
rows2 = lambda x: jnp.tanh(x) * 2 + x
print("shard_map grad", np.allclose(jax.grad(loss(prism.jit(rows2)))(x), jax.grad(loss(rows2))(x)))
total = lambda x: jax.lax.psum(jnp.sum(jnp.exp(x) * x), "d")
sm = lambda f: jax.shard_map(f, mesh=auto, in_specs=P("d"), out_specs=P())
print("psum", np.allclose(sm(prism.jit(total))(x), sm(total)(x), rtol=1e-5),
      np.allclose(jax.grad(sm(prism.jit(total)))(x), jax.grad(sm(total))(x), rtol=1e-5))
"""


def test_programs_over_several_devices() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.splitlines() == [
        "one device plan",
        "split input original True",
        "replicated input original",
        "in_shardings original",
        "mesh in force original",
        "explicit True True",
        "shard_map True True",
        "shard_map grad True",
        "psum True True",
    ], answer.stdout + answer.stderr[-3000:]
