"""How long a search may take: processor time on one core, the better of two runs."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prism_jax as prism
from prism_jax import device
from prism_jax.bench import suites
from prism_jax.bench.workload import Workload
from prism_jax.explore import SearchResult, explore, families
from prism_jax.extract import lift
from prism_jax.ir.program import Program
from prism_jax.options import Options

H100 = device.row("H100")
FIRST = {
    (row.suite, row.name): row
    for suite in ("prism", "mirage")
    for row in reversed(suites.rows(suite))
    if "gpu" in row.platforms and row.maker is None
}
LIMITS = {"rms_norm": 0.3, "rmsnorm": 0.3, "rmsnorm_mlp": 3.0}
"""Seconds; every other program of the suites: one."""


def program(row: Workload) -> Program:
    assert row.function is not None
    shapes = [jax.ShapeDtypeStruct(o.shape, jnp.dtype(o.dtype)) for o in row.operands]
    return lift(jax.make_jaxpr(row.function)(*shapes), row.name)


def searched(source: Program, seconds: float = 600.0) -> tuple[SearchResult, float]:
    families.forget()
    start = time.process_time()
    result = explore(source, H100, Options(search_seconds=seconds))
    return result, time.process_time() - start


@pytest.mark.parametrize("key", FIRST, ids=" ".join)
def test_programs_of_the_suites(key: tuple[str, str]) -> None:
    """Limits are of a quiet machine; one that others use too is allowed twice as long."""
    source = program(FIRST[key])
    tries = [searched(source) for _ in range(2)]
    assert all(result.stop == "complete" for result, _ in tries)
    assert min(seconds for _, seconds in tries) < 2 * LIMITS.get(key[1], 1.0)


LESS = {
    ("mirage", "gqa"): (1.0, 1.5, 2.5), ("mirage", "qknorm"): (0.7, 1.2, 2.7),
    ("mirage", "rmsnorm"): (3.5, 3.5, 3.5), ("mirage", "gatedmlp"): (4.0, 4.0, 4.0),
    ("mirage", "lora"): (1.6, 2.1, 2.7), ("mirage", "ntrans"): (7.0, 7.0, 7.0),
    ("prism", "swiglu"): (1.1, 1.8, 2.3), ("prism", "attention"): (0.9, 1.3, 2.6),
    ("prism", "qk_norm_attention"): (0.8, 1.3, 2.6),
}  # fmt: skip
"""How many times less time the second shape takes: than the first shape's search, and than a fresh
search for the same shape; and than the first, a shape whose structures are all there. Two thirds of
what is reached, since machines differ. The aim is 20 for the first of these, which none reaches:
programs whose best kernels change with the size need structures at the second shape that the first
had no use for (`qknorm`: two hundred kernels), and to instantiate a kernel is a hundred operations
on tables of its tiles.
"""


def _spent(source: Program) -> tuple[SearchResult, float]:
    start = time.process_time()
    result = explore(source, H100, Options(search_seconds=600.0))
    return result, time.process_time() - start


@pytest.mark.parametrize("key", LESS, ids=" ".join)
def test_the_second_shape_costs_less(key: tuple[str, str]) -> None:
    """Of each the best of three, in processor time."""
    rows = [r for r in suites.rows(key[0]) if r.name == key[1] and "gpu" in r.platforms][:3]
    one, two, three = map(program, rows)
    times: dict[str, list[float]] = {}

    def spent(what: str, source: Program) -> SearchResult:
        result, seconds = _spent(source)
        times.setdefault(what, []).append(seconds)
        return result

    for _ in range(3):
        families.forget()
        assert not spent("fresh", two).reused
        families.forget()
        assert not spent("first", one).reused
        assert spent("second", two).reused
        for other in (three, one, two):
            _spent(other)
        known = spent("known", two)
        assert known.reused
        assert known.statistics["kernels"] == 0
    first, second, fresh, known_s = (min(times[k]) for k in ("first", "second", "fresh", "known"))
    ratios = first / second, fresh / second, first / known_s
    assert all(ratio > least for ratio, least in zip(ratios, LESS[key], strict=True)), ratios


def norm(x: Any) -> Any:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def block(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, w3: Any, w2: Any) -> Any:
    """A pre-norm transformer block with causal attention and a gated MLP."""
    h = norm(x)
    q, k, v = (jnp.einsum("bsd,dhe->bshe", h, w) for w in (wq, wk, wv))
    s = jnp.einsum("bqhe,bkhe->bhqk", q, k) / np.sqrt(q.shape[-1])
    s = jnp.where(jnp.tril(jnp.ones(s.shape[-2:], bool)), s, -1e30)
    o = jnp.einsum("bhqk,bkhe->bqhe", jax.nn.softmax(s, -1), v)
    y = x + jnp.einsum("bqhe,hed->bqd", o, wo)
    g = norm(y)
    return y + (jax.nn.silu(g @ w1) * (g @ w3)) @ w2


def shapes(b: int, s: int, d: int, h: int) -> list[jax.ShapeDtypeStruct]:
    e = d // h
    rows = (
        (b, s, d),
        (d, h, e),
        (d, h, e),
        (d, h, e),
        (h, e, d),
        (d, 4 * d),
        (d, 4 * d),
        (4 * d, d),
    )
    return [jax.ShapeDtypeStruct(row, jnp.bfloat16) for row in rows]


def test_a_transformer_block() -> None:
    """Within 20 s, and within a budget that is too short for it, with a certificate either way."""
    source = lift(jax.make_jaxpr(block)(*shapes(2, 1024, 1024, 16)), "block")
    assert len(source.nodes) >= 60
    result, seconds = searched(source)
    assert result.stop == "complete"
    assert seconds < 20.0
    assert any("2 rescaled" in c.why for c in result.candidates[:1])
    families.forget()
    start = time.perf_counter()
    early = explore(source, H100, Options(search_seconds=1.0))
    assert time.perf_counter() - start < 1.0 + 1.0  # the e-graph's forms, then a kernel at a time
    for found in (result, early):
        proof = found.certificate
        assert 0 < proof.floor <= proof.best_bound
        assert proof.gap >= 1.0
        assert f"{proof.gap:.2f}x" in str(proof)
    assert early.stop == "time budget"
    assert not early.certificate.complete


@pytest.mark.parametrize("name", ["A100", "H100", "H200", "CPU"])
def test_search_for_any_device(name: str) -> None:
    """No accelerator is there: sGraphs, statistics, why it stopped and a certificate."""
    small = shapes(1, 64, 32, 2)[0], jax.ShapeDtypeStruct((32, 16), jnp.bfloat16)
    with prism.options(search_seconds=600.0):
        [result] = prism.search(lambda x, w: jax.nn.softmax(norm(x) @ w, -1), *small, device=name)
    assert result.stop == "complete"
    assert result.sgraphs
    assert result.statistics["structures"] > 0
    assert result.certificate.complete
    assert any(c.kernels for c in result.candidates)
    best = result.candidates[0]
    assert best.bound <= best.estimate
