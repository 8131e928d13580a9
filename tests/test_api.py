"""The public functions: forms of jit, warm calls, explain, search, bisect, shadow, threads."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import errors, pipeline
from prism_jax.launch import shadow
from tests.stub_stages import STUB

X = np.arange(6, dtype=np.float32).reshape(2, 3) / 10


@pytest.fixture(autouse=True)
def _stub(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)
    errors.forget()
    pipeline.forget()
    yield
    pipeline.forget()


def shifted(by: float, only: str = "") -> pipeline.Stages:
    """The stub, but plans of regions whose name holds `only` are off by a constant."""
    wrong: set[str] = set()

    def explore(program: Any, device: Any, options: Any) -> Any:
        return STUB.explore(program, device, options)

    def instantiate(region: Any, found: Any, device: Any, options: Any) -> Any:
        if only in region.name:
            wrong.add(region.program.digest)
        return STUB.instantiate(region, found, device, options)

    def emit(outcome: Any) -> Any:
        off = by if outcome.plan.digest in wrong else 0.0
        return SimpleNamespace(
            call=lambda *args: [x + jnp.asarray(off, x.dtype) for x in outcome.plan.call(*args)],
            source="# shifted",
        )

    return dataclasses.replace(STUB, explore=explore, instantiate=instantiate, emit=emit)


# -- forms of jit ----------------------------------------------------------------------------------


def test_decorator_forms() -> None:
    @prism.jit
    def bare(x):
        return x + 1

    @prism.jit()
    def called(x):
        return x + 1

    @prism.jit(static_argnames="n", options=prism.Options(accuracy=1.5))
    def with_keywords(x, n=1):
        return x + n

    @functools.partial(prism.jit, static_argnums=1)
    def with_partial(x, n):
        return x + n

    for result in (bare(X), called(X), with_keywords(X), with_partial(X, 1)):
        np.testing.assert_allclose(result, X + 1)


def test_result_is_what_jax_jit_returns() -> None:
    def step(x, *, scale=2.0):
        """The user's text."""
        return x * scale

    ours, plain = prism.jit(step), jax.jit(step)
    assert type(ours) is type(plain)
    assert (ours.__name__, ours.__doc__, ours.__module__) == ("step", step.__doc__, __name__)
    assert set(dir(plain)) <= {*dir(ours), "__prism_wrappers__"}
    assert "jit_step" in ours.lower(X).as_text()
    ours.clear_cache()


@pytest.mark.parametrize(
    "fun",
    [
        functools.partial(lambda a, x: a * x, 2.0),
        SimpleNamespace(method=lambda x: x * 2).method,
        jax.jit(lambda x: x * 2),
        jnp.negative,
    ],
)
def test_any_callable(fun: Any) -> None:
    ours: Any = prism.jit(fun)
    np.testing.assert_allclose(ours(X), jax.jit(fun)(X))
    assert ours.__name__ == jax.jit(fun).__name__


class Module:
    def __init__(self) -> None:
        self.w = jnp.ones((3, 2))

    def __call__(self, x):
        return x @ self.w

    @functools.partial(prism.jit, static_argnums=0)
    def method(self, x):
        return x @ self.w


def test_objects_and_methods() -> None:
    module = Module()
    np.testing.assert_allclose(prism.jit(module)(X), X @ np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_allclose(module.method(X), X @ np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_allclose(prism.jit(module.__call__)(X), X @ np.ones((3, 2)), rtol=1e-6)


def test_jit_in_a_loop_compiles_once_and_leaks_nothing() -> None:
    count = 0

    def f(x):
        nonlocal count
        count += 1
        return x * 2

    for _ in range(3):
        prism.jit(f)(X)
    assert count == 1
    prism.jit(f, options=prism.Options(accuracy=3.0))(X)
    assert count == 2
    prism.jit(f, static_argnums=())(X)
    dead = weakref.ref(f)
    del f
    jax.clear_caches()
    gc.collect()
    assert dead() is None


def test_optimize_takes_arrays_and_leaves_the_rest() -> None:
    seen: list[Any] = []

    def f(x, how, *, table, n=2):
        seen.append((how, n, table["name"]))
        return {how: x * n + table["w"]}

    ours = prism.optimize(f)
    got = ours(X, "sum", table={"w": X, "name": "t"}, n=3)
    np.testing.assert_allclose(got["sum"], X * 4, rtol=1e-6)
    assert seen == [("sum", 3, "t")]
    np.testing.assert_allclose(
        jax.jit(ours, static_argnums=1)(X, "a", table={"w": X, "name": jnp.ones(())})["a"], X * 3,
        rtol=1e-6,
    )  # fmt: skip
    g = jax.grad(lambda x: jnp.sum(prism.optimize(lambda a: jnp.sin(a))(x)))(X)
    np.testing.assert_allclose(g, np.cos(X), rtol=1e-6)


# -- warm calls ------------------------------------------------------------------------------------


def python_calls(fun: Any, *args: Any) -> list[str]:
    """The names of the Python functions that one call runs."""
    seen: list[str] = []

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            seen.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")

    sys.setprofile(profile)
    try:
        fun(*args)
    finally:
        sys.setprofile(None)
    return seen


@pytest.mark.parametrize("keywords", [{}, {"static_argnums": 1}], ids=["plain", "static"])
def test_a_warm_call_runs_no_python(keywords: dict[str, Any]) -> None:
    def f(x, n):
        return x * n

    args = (jnp.asarray(X), 2)
    ours, plain = prism.jit(f, **keywords), jax.jit(f, **keywords)
    for fun in (ours, plain):
        fun(*args)
        fun(*args)
    assert python_calls(ours, *args) == python_calls(plain, *args) == []
    cold = python_calls(ours, jnp.ones(5), 2)
    assert any("prism_jax" in name for name in cold)  # the method of counting sees our code


def test_a_warm_call_inside_options_runs_none_of_ours() -> None:
    ours = prism.jit(lambda x: x * 2)
    with prism.options(accuracy=3.0):
        ours(X)
        x = jnp.asarray(X)
        ours(x)
        assert python_calls(ours, x) == []


def test_options_in_force_when_tracing_decide(monkeypatch) -> None:
    seen: list[float] = []

    def extract(closed: Any, options: Any, name: str) -> Any:
        seen.append(options.accuracy)
        return STUB.extract(closed, options, name)

    stages = dataclasses.replace(STUB, extract=extract)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    f = prism.jit(lambda x: x * 2)
    g = prism.jit(lambda x: x * 2, options=prism.Options(accuracy=9.0))
    f(X)
    with prism.options(accuracy=4.0):
        f(X)
        f(X)
        g(X)
    f(X)
    assert seen == [2.0, 4.0, 9.0]


def test_disabled_is_jax_jit() -> None:
    def f(x):
        return jnp.sin(x) @ x.T

    off = prism.Options(enabled=False)
    assert prism.jit(f, options=off).__wrapped__ is f
    with prism.options(enabled=False):
        assert "prism_call" not in str(prism.jit(f).trace(X).jaxpr)
        assert "prism_call" not in str(jax.make_jaxpr(prism.optimize(f))(X))
    assert "prism_call" in str(prism.jit(f).trace(X).jaxpr)


# -- explain, search, bisect -----------------------------------------------------------------------


def two_parts(x):
    y = jnp.sin(x) * 2
    jax.debug.callback(lambda v: None, y)
    return jnp.tanh(y @ y.T)


def test_explain() -> None:
    report = prism.explain(two_parts, X)
    assert isinstance(report, prism.Report)
    assert (report.function, report.device, len(report.regions)) == ("two_parts", "stub", 2)
    assert [region.replaced for region in report.regions] == [True, True]
    assert report.untouched == 1
    assert report.refused == ("stub: effects",)
    region = report.regions[0]
    assert region.axioms == ("identity",)
    assert region.candidates[0].measured == 3e-6
    assert [stage for stage, _ in region.stages] == ["explore", "instantiate", "emit"]
    text = str(report)
    for part in (
        "two_parts on stub: 2 regions, 2 replaced",
        "program",
        "identity",
        "stub: effects",
    ):
        assert part in text
    assert json.loads(json.dumps(report.to_json()))["function"] == "two_parts"
    assert "<details>" in report._repr_html_()
    assert report.summary.splitlines()[0] in text


def test_explain_of_what_is_not_looked_at() -> None:
    for report in (
        prism.explain(lambda: None),
        prism.explain(prism.jit(lambda x: x + 1, options=prism.Options(enabled=False)), X),
    ):
        assert report.regions == () or report.device
    with prism.options(enabled=False):
        assert "did not look at it" in str(prism.explain(two_parts, X))


def test_explain_takes_shapes_and_our_own_functions() -> None:
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    ours = prism.jit(lambda x, n: x * n, static_argnums=1, options=prism.Options(accuracy=3.0))
    for _ in range(2):  # whether or not it was compiled before
        assert len(prism.explain(ours, shape, 3).regions) == 1
        ours(X, 3)
    calls: list[int] = []

    @functools.wraps(ours)
    def logged(x):
        calls.append(1)
        return ours(x, 3) + 1

    assert len(prism.explain(logged, shape).regions) == 2
    assert calls == [1]


def test_explain_hears_nested_calls_and_derivatives() -> None:
    inner = prism.jit(lambda x: jnp.sin(x) * 2)
    inner(X)
    report = prism.explain(lambda x: jax.grad(lambda a: jnp.sum(inner(a)))(x), X)
    names = [region.name for region in report.regions]
    assert any("_vjp" in name for name in names)


def test_search_needs_no_device() -> None:
    results = prism.search(two_parts, jax.ShapeDtypeStruct((2, 3), jnp.float32), device="H100")
    assert [result.stop for result in results] == ["complete", "complete"]


def test_bisect_finds_the_culprit(monkeypatch) -> None:
    stages = shifted(0.5, "_2")
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    found = prism.bisect(two_parts, X)
    assert found.culprit == "two_parts_2"
    assert [name for name, _ in found.rows] == ["two_parts_2", "two_parts_0"]
    assert found.rows[1][1] == 0
    assert found.together == found.rows[0][1] > 0.1
    assert "two_parts_2 changes the result most" in str(found)
    monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)
    nothing = prism.bisect(prism.jit(two_parts), X)
    assert nothing.culprit is None
    assert "no region changes the result" in str(nothing)


def test_difference() -> None:
    nan, inf = jnp.nan, jnp.inf
    a = jnp.array([1.0, nan, inf, -inf])
    assert float(shadow.difference(a, a)) == 0
    assert float(shadow.difference(a.at[1].set(0), a)) == inf
    assert float(shadow.difference(a.at[2].set(-inf), a)) == inf
    assert float(shadow.difference(a.at[0].set(nan), a)) == inf
    assert float(shadow.difference(jnp.array([1.0, 2.5]), jnp.array([1.0, 2.0]))) == 0.25
    assert float(shadow.difference(jnp.array([1, 2]), jnp.array([1, 3]))) == 1
    assert float(shadow.difference(jnp.zeros((0,)), jnp.zeros((0,)))) == 0
    assert float(shadow.difference(jnp.array([1j]), jnp.array([1j]))) == 0
    key = jax.random.key(0)
    assert float(shadow.difference(key, key)) == 0


# -- shadow runs -----------------------------------------------------------------------------------


def test_shadow_runs_compare_a_fraction_of_calls() -> None:
    shadow.records.clear()
    f = prism.jit(lambda x: jnp.sin(x) * 2, options=prism.Options(shadow=0.5))
    for _ in range(60):
        f(X)
    jax.effects_barrier()
    assert 10 < len(shadow.records) < 50
    assert {error for _, _, error in shadow.records} == {0.0}


def test_shadow_runs_report_differences(monkeypatch) -> None:
    stages = shifted(1.0)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    shadow.records.clear()

    def mine(x):
        return jnp.sin(x) * 2, 3

    f = prism.jit(mine, options=prism.Options(shadow=1.0))
    with pytest.warns(errors.ShadowMismatch, match="Shadow run of mine: output 0 differs"):
        _ = f(X), jax.effects_barrier()
    assert max(error for _, _, error in shadow.records) > 0.1


def test_shadow_runs_survive_transformations() -> None:
    f = prism.jit(lambda x: jnp.sum(jnp.sin(x) * x), options=prism.Options(shadow=1.0))
    np.testing.assert_allclose(jax.grad(f)(X), np.cos(X) * X + np.sin(X), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(f)(X), np.sum(np.sin(X) * X, 1), rtol=1e-5)
    jax.effects_barrier()


# -- threads ---------------------------------------------------------------------------------------


def test_threads_share_one_plan(monkeypatch) -> None:
    planned: list[str] = []
    lock = threading.Lock()

    def explore(program: Any, device: Any, options: Any) -> Any:
        with lock:
            planned.append(program.digest)
        return STUB.explore(program, device, options)

    stages = dataclasses.replace(STUB, explore=explore)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)

    def work(n: int) -> Any:
        with prism.options(on_error="raise"):
            return prism.jit(lambda x: jnp.sin(x) @ x.T)(X + n)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(8)))
    for n, result in enumerate(results):
        np.testing.assert_allclose(result, np.sin(X + n) @ (X + n).T, rtol=1e-5)
    assert len(planned) == len(set(planned)) == 1


def test_plans_are_remembered_by_what_decides_them(monkeypatch) -> None:
    planned: list[str] = []

    def explore(program: Any, device: Any, options: Any) -> Any:
        planned.append(program.digest)
        return STUB.explore(program, device, options)

    stages = dataclasses.replace(STUB, explore=explore)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    layer = lambda x: jnp.tanh(x) * 2  # noqa: E731

    def model(x):
        for _ in range(5):
            x = layer(x)
            jax.debug.callback(lambda v: None, x)  # keeps the layers apart
        return x

    prism.jit(model)(X)
    assert len(planned) == 1
    prism.jit(lambda x: layer(x), options=prism.Options(on_error="raise"))(X)
    assert len(planned) == 1
    prism.jit(lambda x: layer(x), options=prism.Options(accuracy=5.0))(X)
    assert len(planned) == 2
    prism.jit(lambda x: layer(x))(X[:1])
    assert len(planned) == 3


def test_equal_regions_are_charged_once() -> None:
    def model(x):
        for _ in range(3):
            x = jnp.tanh(x) * 2
            jax.debug.callback(lambda v: None, x)
        return x

    regions = prism.explain(model, X).regions
    assert [bool(region.stages) for region in regions] == [True, False, False]
    assert [region.name for region in regions] == ["model_0", "model_2", "model_4"]


def test_hlo_is_the_same_in_every_process() -> None:
    code = (
        "import jax.numpy as jnp, prism_jax as prism\n"
        "from prism_jax import pipeline\n"
        "from tests.stub_stages import STUB\n"
        "pipeline.default_stages = lambda: STUB\n"
        "f = prism.jit(lambda q, k: jnp.tanh(q @ k.T) @ k)\n"
        "x = jnp.ones((4, 3))\n"
        "print(f.lower(x, x).as_text())\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert "dot_general" in texts[0]
    assert texts[0] == texts[1]


def test_reverse_mode_of_a_found_plan_keeps_what_is_linear_in_the_length() -> None:
    """A plan that the search found and that runs, not the tests' own (issue 2)."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(q @ k.T / np.sqrt(q.shape[-1]), axis=-1) @ v

    def kept(fun: Any, *args: Any) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(jax.vjp(fun, *args)[1]))

    sizes = []
    with prism.options(tune="off", cache="off"):
        for n in (512, 1024):
            q, k, v = jax.random.normal(jax.random.key(n), (3, n, 64))
            [region] = prism.explain(attention, q, k, v).regions
            assert region.replaced, f"no plan is chosen at {n}: the test has lost its subject"
            ours = prism.jit(attention)
            sizes.append(kept(ours, q, k, v))
            assert sizes[-1] <= 4 * n * 64, "more than the inputs and the output"
            assert kept(jax.jit(attention), q, k, v) > n * n
            gradients = (
                jax.grad(lambda q, f=f, k=k, v=v: jnp.sum(f(q, k, v) ** 2))(q)
                for f in (ours, jax.jit(attention))
            )
            np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)
    assert sizes[1] == 2 * sizes[0]
