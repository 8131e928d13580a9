"""The one door to jax's internals gives one answer on every supported version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import compat


def test_supported_versions() -> None:
    assert compat.JAX_VERSION >= (0, 10, 2)
    assert len(compat.JAX_VERSION) == 3


def test_public_names_exist() -> None:
    assert [name for name in compat.__all__ if not hasattr(compat, name)] == []


def test_weak_types_and_contexts_survive_evaluation() -> None:
    def f(x, y):
        return x * 2, y + 1, 3.0, jnp.float32(1)

    closed = jax.make_jaxpr(f)(1.0, jnp.float32(1))
    again = compat.trace_flat(lambda *a: compat.evaluate(closed, *a), closed.in_avals)
    assert list(again.out_avals) == list(closed.out_avals)
    assert [a.weak_type for a in again.out_avals] == [True, False, True, False]


def test_name_stacks_survive_evaluation() -> None:
    def f(x):
        with jax.named_scope("mine"):
            return jnp.sin(x)

    closed = jax.make_jaxpr(f)(1.0)
    outer = jax.jit(lambda x: compat.evaluate(closed, x))
    assert "mine" in outer.lower(1.0).as_text(debug_info=True)


def test_trace_jit_keeps_closed_over_tracers_as_constants() -> None:
    seen: list[Any] = []

    def outer(x):
        def inner(y, n):
            return y * x + n

        closed, tree = compat.trace_jit(inner, (x * 2, 3), {}, static_argnums=1)
        seen.append((len(closed.jaxpr.invars), len(compat.constants(closed)), tree.num_leaves))
        moved, consts = compat.to_inputs(closed)
        seen.append((len(moved.jaxpr.invars), len(compat.constants(moved)), len(consts)))
        return compat.evaluate(closed, x)[0], compat.evaluate(moved, *consts, x)[0]

    assert [float(v) for v in jax.jit(outer)(2.0)] == [7.0, 7.0]
    assert seen == [(1, 1, 1), (2, 0, 1)]


@pytest.mark.parametrize(
    ("fun", "count"),
    [
        (lambda x: jax.lax.scan(lambda c, a: (c + a, c), 0.0, x), 1),
        (lambda x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: c + 1, x), 1),
        (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), 2),
        (lambda x: jax.jit(jnp.sin)(x), 1),
        (lambda x: jax.checkpoint(lambda y: jnp.sin(y) * 2)(x), 1),
        (lambda x: jax.nn.relu(x), 0),  # a custom_jvp_call keeps its program
        (lambda x: x + 1, 0),
    ],
)
def test_inner_programs_can_be_replaced(fun: Any, count: int) -> None:
    closed = jax.make_jaxpr(fun)(jnp.arange(3.0))
    eqn = closed.eqns[-1]
    inner = compat.inner_jaxprs(eqn)
    assert len(inner) == count
    # Replace each by one that was traced anew, and evaluate.
    new = {
        place: compat.trace_flat(lambda *a, old=old: compat.evaluate(old, *a), old.in_avals)
        for place, old in inner.items()
    }
    assert all(compat.same_types(new[place], inner[place]) for place in inner)
    again = compat.with_inner_jaxprs(eqn, new)
    env = dict(zip(closed.jaxpr.invars, [jnp.arange(3.0)], strict=True))
    for e in closed.eqns[:-1]:
        values = [compat.read(env, atom) for atom in e.invars]
        env.update(zip(e.outvars, compat.bind_equation(e, values), strict=True))
    values = [compat.read(env, atom) for atom in eqn.invars]
    want, got = compat.bind_equation(eqn, values), compat.bind_equation(again, values)
    assert all(jnp.array_equal(a, b) for a, b in zip(want, got, strict=True))


def test_sharded_nested_jit_is_left_alone() -> None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    closed = jax.make_jaxpr(lambda x: jax.jit(jnp.sin, out_shardings=sharding)(x))(1.0)
    assert compat.inner_jaxprs(closed.eqns[0]) == {}


def test_jvp_program_knows_which_outputs_move() -> None:
    closed = jax.make_jaxpr(lambda x, n: (x * 2, n + 1, 3.0))(1.0, 2)
    program, nonzero = compat.jvp_program(closed, [True, False])
    assert nonzero == [True, False, False]
    assert len(program.out_avals) == 4
    kept, used = compat.dce(compat.trace_flat(lambda a, b: [b * 2], program.in_avals[:2]))
    assert used == [False, True]
    assert len(kept.in_avals) == 1


def test_custom_vjp_is_noticed_in_tangent_programs() -> None:
    f: Any = jax.custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, None), lambda _, g: (g,))
    inside = jax.make_jaxpr(lambda x: jax.jit(f)(x))(1.0)
    outside = jax.make_jaxpr(lambda x: jnp.sin(x))(1.0)
    assert compat.only_transposes(compat.jvp_program(inside, [True])[0])
    assert not compat.only_transposes(compat.jvp_program(outside, [True])[0])


def test_outside_trace_runs_at_once() -> None:
    def f(x):
        with compat.outside_trace():
            assert not compat.is_tracer(jnp.sin(jnp.ones(2)) + 1)
        assert compat.is_tracer(x)
        assert compat.is_tracing()
        return x

    jax.jit(f)(1.0)
    assert not compat.is_tracing()


def test_aside_compiles_while_tracing_and_keeps_64_bits() -> None:
    def f(x):
        inner = compat.aside(lambda: jax.jit(lambda y: y * 2)(np.arange(2.0)))
        assert not compat.is_tracer(inner)
        return x + inner.sum()

    with jax.enable_x64(True):
        assert jax.jit(f)(1.0).dtype == jnp.float64
        assert compat.aside(lambda: jnp.ones(2).dtype) == jnp.float64
    assert compat.aside(lambda: jnp.ones(2).dtype) == jnp.float32
    with pytest.raises(KeyError, match="aside"):
        compat.aside(lambda: {}["aside"])


def test_what_is_local() -> None:
    assert compat.is_local(jax.core.ShapedArray((2,), jnp.dtype("float32")))
    assert compat.is_local(compat.aval_of(jax.random.key(0)))
    assert not compat.is_local(compat.aval_of(jax.new_ref(jnp.ones(2))))
    assert not compat.under_automatic_sharding()


def test_context_keys_tell_settings_apart() -> None:
    plain = compat.context_key()
    with jax.default_matmul_precision("highest"):
        assert compat.context_key() != plain
    assert compat.context_key() == plain


def test_names() -> None:
    import functools

    assert compat.function_name(jnp.sin) == "sin"
    assert compat.function_name(functools.partial(sorted, key=len)) == "sorted"
    assert compat.is_jitted(jax.jit(lambda x: x))
    assert not compat.is_jitted(lambda x: x)


def test_deprecated_names_are_not_used() -> None:
    # Importing with warnings as errors: what jax has deprecated it will remove.
    import subprocess

    code = "import warnings; warnings.simplefilter('error'); import prism_jax.api"
    subprocess.run([sys.executable, "-c", code], check=True)
    text = Path(compat.__file__).read_text()
    assert re.findall(r"^from (jax\._src[\w.]*)", text, re.M), "the internals are imported by name"


def test_the_end_of_a_process_waits_for_a_thread_inside_xla() -> None:
    """A thread that compiles when the interpreter is taken down would abort the process."""
    code = """
import time, jax, jax.numpy as jnp
from prism_jax.launch import rooms  # who compiles aside
from prism_jax import compat

def work():
    end, n = time.monotonic() + 3, 0
    while time.monotonic() < end:
        n += 1
        jax.block_until_ready(jax.jit(lambda a: jnp.tanh(a @ a + n) @ a)(jnp.ones((200, 200))))
    print("ended")

try:
    compat.aside(work, 0.5)
except TimeoutError:
    print("late", flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["late", "ended"]), ended.stderr
