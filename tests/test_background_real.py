"""`tune="background"` with the real stages, on the CPU: a program is searched, emitted as blocked
lax, compiled, measured and checked beside the calls that XLA's version answers meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import background, pipeline
from prism_jax.report import RegionReport

N = 512
SLACK_SECONDS = 0.35
"""What a machine that is busy with other work adds to a budget."""


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    pipeline.forget()
    background.queue.forget()
    yield
    pipeline.forget()


def points(seed: int) -> tuple[np.ndarray[Any, Any], ...]:
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((N, 8)).astype(np.float32) for _ in range(3))


def exact(x: Any, y: Any, v: Any) -> np.ndarray[Any, Any]:
    """The sum of kernels in float64."""
    x, y, v = (np.asarray(a, np.float64) for a in (x, y, v))
    return np.exp(-np.square(x[:, None] - y[None]).sum(-1)) @ v


def ended(limit: float) -> None:
    """Waits for all jobs."""
    end = time.monotonic() + limit
    for job in list(background.queue._known.values()):
        assert job.wait(max(0.0, end - time.monotonic()))
        assert job.error is None


def late(region: RegionReport, options: prism.Options) -> float:
    """Seconds by which the stages of a region exceed 1.1 times their budgets, at most."""
    stages = dict(region.stages)
    return max(
        stages["explore"] - 1.1 * options.search_seconds,
        stages["instantiate"] - 1.1 * options.tune_seconds,
    )


def test_a_plan_is_found_beside_the_calls_and_takes_xlas_place(tmp_path: Path) -> None:
    traced: list[int] = []
    here: list[str] = []
    main = threading.current_thread()

    def kernel_sum(x, y, v):
        traced.append(1)
        return jnp.exp(-jnp.sum((x[:, None, :] - y[None, :, :]) ** 2, -1)) @ v

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if "backend_compile" in event and threading.current_thread() is main:
            here.append(event)

    arguments = [jnp.asarray(a) for a in points(0)]
    plain = np.asarray(jax.jit(kernel_sum)(*arguments))
    own = jax.jit(kernel_sum).lower(*arguments).as_text()
    options = prism.Options(
        tune="background", search_seconds=10.0, tune_seconds=20.0, cache="on",
        cache_dir=str(tmp_path), on_error="raise",
    )  # fmt: skip
    ours = prism.jit(kernel_sum, options=options)
    traced.clear()
    np.testing.assert_array_equal(np.asarray(ours(*arguments)), plain)
    assert len(traced) == 1
    assert "being tuned" in str(prism.explain(ours, *arguments))
    count = len(traced)

    jax.monitoring.register_event_duration_secs_listener(heard)
    answers = [plain]
    (job,) = background.queue._known.values()
    end = time.monotonic() + 120.0
    while time.monotonic() < end and not (job.done and len(answers) > 1):
        found = np.asarray(ours(*arguments))
        if not np.array_equal(found, answers[-1]):
            answers.append(found)
        if job.done and job.result.runs is None:
            break
        time.sleep(0.1)
    # No call compiled anything or ran the function again, and the answer changed once at most.
    assert here == []
    assert len(traced) == count
    assert len(answers) <= 2

    (region,) = prism.explain(ours, *arguments).regions
    assert late(job.result.report, options) < SLACK_SECONDS  # what is shown comes from the cache
    measured = [c for c in region.candidates if c.measured is not None]
    assert len(measured) > 1  # judged: XLA's version is one of them
    assert bool(region.plan) == (len(answers) == 2)
    assert (ours.lower(*arguments).as_text() != own) == bool(region.plan)
    assert region.plan or all(c.verdict for c in region.candidates)
    want = exact(*arguments)
    allowed = 2 * np.abs(plain - want).max() + 4 * np.spacing(np.float32(np.abs(want).max()))
    assert np.abs(np.asarray(ours(*arguments)) - want).max() <= allowed
    other = [jnp.asarray(a) for a in points(1)]
    np.testing.assert_allclose(np.asarray(ours(*other)), exact(*other), rtol=1e-3, atol=1e-5)

    # What was decided is kept: another start neither searches nor measures.
    pipeline.forget()
    background.queue.forget()
    again = prism.jit(kernel_sum, options=options.replace(tune="never"))
    np.testing.assert_array_equal(np.asarray(again(*arguments)), answers[-1])
    (kept,) = prism.explain(again, *arguments).regions
    assert (kept.plan, [name for name, _ in kept.stages]) == (region.plan, ["cache"])


def test_short_budgets_are_kept_beside_the_calls() -> None:
    """Whatever of the work is done by then; one of three programs may meet a busy moment."""
    options = prism.Options(tune="background", search_seconds=0.5, tune_seconds=1.0, cache="off")

    def sums(power: float):
        return prism.jit(
            lambda x, y, v: jnp.sum(jnp.abs(x[:, None] - y[None]) ** power, -1) @ v, options=options
        )

    arguments = [jnp.asarray(a) for a in points(2)]
    functions = [sums(power) for power in (1.5, 2.5, 3.5)]
    first = [np.asarray(f(*arguments)) for f in functions]
    ended(60.0)
    regions = [prism.explain(f, *arguments).regions[0] for f in functions]
    assert min(late(region, options) for region in regions) < SLACK_SECONDS
    for function, before in zip(functions, first, strict=True):
        np.testing.assert_allclose(np.asarray(function(*arguments)), before, rtol=1e-3, atol=1e-2)
