"""`tune="off"` and `tune="never"` as a user meets them: the real stages, on the host."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import device, errors, pipeline
from prism_jax.measure import host, on_device, pairs
from tests.cache.examples import softmax_product


def low_rank(x: Any, a: Any, b: Any) -> Any:
    return jnp.tanh(x @ (a @ b))


SHAPES = ((8, 512), (512, 4), (4, 512))
ARGS = [jnp.sin(jnp.arange(float(m * n))).reshape(m, n) for m, n in SHAPES]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    pipeline.forget()
    errors.forget()
    yield
    pipeline.forget()


def test_off_takes_the_ranking_and_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(host, "host_clock", measured)
    monkeypatch.setattr(pairs, "Pairs", measured)
    monkeypatch.setattr(on_device, "read", measured)
    monkeypatch.setattr(device, "calibrate_cpu", measured)
    monkeypatch.setattr(device, "_calibrated", {})
    options = prism.Options(tune="off", cache="off", on_error="raise")
    ours = prism.jit(low_rank, options=options)
    np.testing.assert_allclose(ours(*ARGS), jax.jit(low_rank)(*ARGS), rtol=1e-5, atol=1e-5)
    (region,) = prism.explain(ours, *ARGS).regions
    assert region.replaced, "two thin products in place of a square one"
    assert all(candidate.measured is None for candidate in region.candidates)
    assert region.evidence


PROGRAM = """
import json, sys, jax, jax.numpy as jnp, prism_jax as prism
from tests.cache.test_modes import ARGS, low_rank
ours = prism.jit(low_rank, options=prism.Options(tune="off", cache="off", on_error="raise"))
(region,) = prism.explain(ours, *ARGS).regions
print(json.dumps([region.plan_text, ours.lower(*ARGS).as_text()]))
"""


def test_off_decides_alike_in_every_process() -> None:
    found: set[str] = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        plan, text = json.loads(done.stdout)
        assert plan
        found.add(hashlib.sha256(f"{plan} {text}".encode()).hexdigest())
    assert len(found) == 1


def test_never_runs_what_was_shipped_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune, export, load elsewhere: there nothing is searched, whether the plan is there or not."""
    there = prism.Options(cache="on", cache_dir=str(tmp_path / "there"), tune_seconds=6.0)
    prism.jit(low_rank, options=there)(*ARGS)
    assert prism.cache.export(tmp_path / "plans.zip", there) == 1
    here = there.replace(cache_dir=str(tmp_path / "here"), tune="never", on_error="raise")
    assert prism.cache.load(tmp_path / "plans.zip", here) == 1
    pipeline.forget()

    def never(*_: Any) -> Any:
        raise AssertionError("searched")

    stages = pipeline.default_stages()
    for stage in ("explore", "instantiate"):
        monkeypatch.setitem(stages.__dict__, stage, never)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shipped = prism.jit(low_rank, options=here)
        np.testing.assert_allclose(shipped(*ARGS), jax.jit(low_rank)(*ARGS), rtol=1e-5, atol=1e-5)
    (region,) = prism.explain(shipped, *ARGS).regions
    assert region.kept.startswith("entry ")
    x, y = jnp.ones((16, 8)), jnp.ones((8, 4))
    missing = prism.jit(softmax_product, options=here)
    with pytest.warns(prism.PrismWarning, match="softmax_product"):
        np.testing.assert_allclose(missing(x, y), softmax_product(x, y), rtol=1e-6)
    assert len(list((tmp_path / "here").glob("*.prism"))) == 1
