"""Steps that a mask makes idle are left out of the search's model."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.explore import families, search
from prism_jax.explore.masked import cuts
from prism_jax.explore.result import SearchResult
from prism_jax.explore.search import Form
from prism_jax.extract import lift
from prism_jax.ir.masks import atoms, share
from prism_jax.ir.nodes import Axis, Const, Iota, Node, Pointwise
from prism_jax.ir.program import Program
from tests.explore.test_family import fresh

H100 = device.row("H100")


def attention(rows: int, window: int | None) -> Program:
    """Of so many queries and keys; `window`: how far back a query looks, None: all keys."""

    def fun(q: Any, k: Any, v: Any) -> Any:
        s = q @ k.T
        if window is not None:
            i, j = (jax.lax.broadcasted_iota(jnp.int32, s.shape, n) for n in range(2))
            s = jnp.where((j <= i) & (j > i - window), s, -1e30)
        return jax.nn.softmax(s, -1) @ v

    shapes = [jax.ShapeDtypeStruct((rows, 64), jnp.float16)] * 3
    return lift(jax.make_jaxpr(fun)(*shapes), "attention")


def found(program: Program) -> SearchResult:
    return search(program, [Form(program)], H100, 60)


def fused(result: SearchResult) -> Any:
    return next(c for c in result.candidates if c.kernels == 1 and len(c.sgraph.nodes) == 1)


@pytest.mark.parametrize(
    ("offset", "rows", "columns", "left"),
    [(0, 100, 100, 0.505), (0, 50, 100, 0.255), (50, 50, 100, 0.755), (-100, 100, 100, 0.0)],
)
def test_share_of_a_triangle(offset: int, rows: int, columns: int, left: float) -> None:
    """Exactly: (n + 1) / 2n of n times n."""
    i, j = Axis("i", rows), Axis("j", columns)
    shifted: Node = Pointwise("add", (Iota(i), Const(offset, "int32")))
    known = atoms(Pointwise("le", (Iota(j), shifted)))
    assert known is not None
    counted = np.mean([y <= x + offset for x in range(rows) for y in range(columns)])
    found = share(known, j, lambda a: int(a.size))
    assert found == pytest.approx(counted)
    assert found == pytest.approx(left)


def test_large_axes_are_sampled() -> None:
    i, j = Axis("i", 1 << 20), Axis("j", 1 << 20)
    known = atoms(Pointwise("le", (Iota(j), Iota(i))))
    assert known is not None
    start = time.process_time()
    assert share(known, j, lambda a: int(a.size)) == pytest.approx(0.5, rel=1e-3)
    assert time.process_time() - start < 0.1


def test_estimates_follow_the_mask() -> None:
    """By arithmetic: causal attention is half the work, a window what it covers."""
    whole, causal, window = (fused(found(attention(8192, w))) for w in (None, 8192, 1024))
    assert cuts(whole.sgraph.kernels[0]) is None
    assert 0.45 < causal.estimate / whole.estimate < 0.65
    assert 0.10 < window.estimate / whole.estimate < 0.30
    for candidate in (whole, causal, window):
        assert candidate.bound <= candidate.estimate


def test_the_share_is_of_the_sizes_asked_for() -> None:
    families.forget()
    for rows in (2048, 4096, 3000):
        program = attention(rows, 512)
        again = families.search(program, H100, time.perf_counter() + 60)
        assert again.reused == (rows != 2048)
        assert _ranking(again) == _ranking(fresh(program))


def _ranking(result: SearchResult) -> list[tuple[str, float, float]]:
    return [(c.sgraph.digest, c.estimate, c.bound) for c in result.candidates]
