"""`tune="background"`: who answers when, what runs in Python, and what a swap costs a call."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import background, compat, pipeline
from prism_jax.cache import remembered
from prism_jax.launch import rooms
from tests.stub_stages import STUB

X = jnp.arange(6.0).reshape(2, 3) / 10
DEVICE = rooms.Target("stub", {"platform": "stub"}, lambda: None)  # type: ignore[arg-type]
BESIDE = prism.Options(tune="background", on_error="raise")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Stages whose plans add 100 to the result, and are found when the event is set."""
    event = threading.Event()

    def instantiate(region: Any, found: Any, device: Any, options: Any) -> Any:
        assert options.tune == "auto"
        assert event.wait(30.0)
        return STUB.instantiate(region, found, device, options)

    def emit(outcome: Any) -> Any:
        return SimpleNamespace(
            call=lambda *args: [x + jnp.asarray(100, x.dtype) for x in outcome.plan.call(*args)],
            source="# shifted",
        )

    stages = dataclasses.replace(
        STUB, device=lambda options: DEVICE, instantiate=instantiate, emit=emit, cache=remembered
    )
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    pipeline.forget()
    background.queue.forget()
    yield event
    event.set()
    pipeline.forget()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_plans_take_xlas_place_without_running_the_function_again(gate: threading.Event) -> None:
    traced: list[tuple[int, ...]] = []

    def f(x):
        traced.append(x.shape)
        return jnp.tanh(x) @ x.T

    ours = prism.jit(f, options=BESIDE)
    want = jnp.tanh(X) @ X.T
    small = X[:, :2]
    for _ in range(3):
        np.testing.assert_allclose(ours(X), want, rtol=1e-6)
    ours(small)
    assert "being tuned" in str(prism.explain(ours, X))
    count = len(traced)
    gate.set()
    until(lambda: bool(np.allclose(ours(X), want + 100)))
    until(lambda: bool(np.allclose(ours(small), jnp.tanh(small) @ small.T + 100)))
    for _ in range(3):
        np.testing.assert_allclose(ours(X), want + 100, rtol=1e-6)
    assert len(traced) == count
    assert [r.plan for r in prism.explain(ours, X).regions] == ["stub: evaluates the region"]


def test_the_swap_is_compiled_beside_the_calls(gate: threading.Event) -> None:
    compiled: list[str] = []

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if "backend_compile" in event:
            compiled.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(heard)
    ours = prism.jit(lambda x: jnp.cos(x) @ x.T, options=BESIDE)
    ours(X)
    compiled.clear()
    gate.set()
    want = jnp.cos(X) @ X.T + 100
    compiled.clear()
    until(lambda: bool(np.allclose(np.asarray(ours(X)), want)))
    assert "prism_jax_swap" in compiled
    assert threading.current_thread().name not in compiled


def test_a_warm_call_runs_no_python_before_and_after(gate: threading.Event) -> None:
    ours = prism.jit(lambda x: jnp.sin(x) @ x.T, options=BESIDE)
    want = np.asarray(jnp.sin(X) @ X.T)

    def python_calls() -> list[str]:
        seen: list[str] = []

        def profile(frame: Any, event: str, _: Any) -> None:
            if event == "call":
                seen.append(frame.f_code.co_filename)

        ours(X)
        sys.setprofile(profile)
        try:
            ours(X)
        finally:
            sys.setprofile(None)
        return seen

    ours(X)
    assert python_calls() == []
    gate.set()
    until(lambda: bool(np.allclose(np.asarray(ours(X)), want + 100)))
    assert python_calls() == []


def test_static_arguments_and_scopes_are_swapped_too(gate: threading.Event) -> None:
    with prism.options(tune="background"):
        ours = prism.jit(lambda x, n: {"y": jnp.exp(x) @ x.T * n}, static_argnums=1)
        want = np.asarray(jnp.exp(X) @ X.T)
        np.testing.assert_allclose(ours(X, 2)["y"], want * 2, rtol=1e-6)
        np.testing.assert_allclose(ours(X, 3)["y"], want * 3, rtol=1e-6)
        gate.set()
        for n in (2, 3):
            until(lambda n=n: bool(np.allclose(np.asarray(ours(X, n)["y"]), want * n + 100)))


def test_a_plan_that_fails_leaves_xlas_version(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no plan")

    stages = dataclasses.replace(pipeline.default_stages(), explore=broken)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    ours = prism.jit(lambda x: jnp.log1p(x) @ x.T, options=BESIDE.replace(on_error="warn"))
    gate.set()
    want = np.asarray(jnp.log1p(X) @ X.T)
    np.testing.assert_allclose(ours(X), want, rtol=1e-6)
    with pytest.warns(prism.PrismWarning, match="explore"):
        until(lambda: "failed" in str(prism.explain(ours, X)))
    np.testing.assert_allclose(ours(X), want, rtol=1e-6)


def test_jobs_run_once_and_in_turn() -> None:
    queue, order = background.Queue(), list[int]()
    first = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            first.wait(10.0)
        order.append(number)
        if number == 2:
            raise ValueError
        return number

    jobs = [queue.job(n % 4, lambda n=n: work(n % 4)) for n in range(8)]
    assert jobs[:4] == jobs[4:]
    assert not jobs[0].done
    first.set()
    assert all(job.wait(10.0) for job in jobs)
    assert order == [0, 1, 2, 3]
    assert [job.result for job in jobs[:4]] == [0, 1, None, 3]
    assert isinstance(jobs[2].error, ValueError)
    queue.close()
    assert not queue.job("late", lambda: order.append(9)).wait(0.05)


def test_a_process_ends_while_it_tunes(tmp_path: Path) -> None:
    code = (
        "import time, jax.numpy as jnp, prism_jax as prism\n"
        "f = prism.jit(lambda x, y: jnp.tanh(x @ y) @ y, options=prism.Options(\n"
        "    tune='background', tune_seconds=60))\n"
        "f(jnp.ones((256, 256)), jnp.ones((256, 256))).block_until_ready()\n"
        "print('done', flush=True)\n"
    )
    start = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")
    assert time.monotonic() - start < 30


def test_plans_that_are_ready_before_xla_has_compiled(gate: threading.Event) -> None:
    """What the first call puts into jax's caches when it returns does not stay there."""
    gate.set()

    def slow(x):
        for n in range(60):
            x = jnp.sin(x + n) @ jnp.eye(3)
        return x

    ours = prism.jit(slow, options=BESIDE)
    first = np.asarray(ours(X))
    until(lambda: bool(np.allclose(np.asarray(ours(X)), slow(X) + 100, atol=1e-4)))
    assert first.shape == X.shape


def test_a_process_ends_while_xla_compiles_for_nobody() -> None:
    """Nobody waits for it any longer, but Python would abort if it came back to what has ended."""
    code = (
        "import time, jax, jax.numpy as jnp\n"
        "from prism_jax import compat\n"
        "from prism_jax.launch import rooms\n"
        "def large(x):\n"
        "    for n in range(100):\n"
        "        x = jnp.sin(x @ x + n)\n"
        "    return x\n"
        "begun = []\n"
        "def compile():\n"
        "    lowered = jax.jit(large).lower(jnp.ones((8, 8)))\n"
        "    begun.append(1)\n"
        "    lowered.compile()\n"
        "    begun.append(2)\n"
        "try:\n"
        "    compat.aside(compile, 0.3)\n"
        "except TimeoutError:\n"
        "    print('late', flush=True)\n"
        "while not begun:\n"
        "    time.sleep(0.01)\n"
        "assert begun == [1], 'compiling takes less than this test needs'\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "late\n", "")


def test_nothing_begins_aside_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_ending", threading.Event())
    monkeypatch.setattr(compat, "_asides", {})
    release, waited = threading.Event(), list[BaseException]()

    def wait() -> None:
        try:
            compat.aside(lambda: release.wait(30.0))
        except TimeoutError as error:
            waited.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: bool(compat._asides))
    until(lambda: any(thread.is_alive() for thread in compat._asides))
    (still,) = compat.end_asides()
    waiting.join(10.0)
    assert len(waited) == 1
    with pytest.raises(TimeoutError):
        compat.aside(lambda: 1)
    release.set()
    still.join(10.0)
    assert not still.is_alive()
    queue = background.Queue()
    queue.at_close += [compat.end_asides, lambda: None]
    queue.close()
    assert queue.closed
