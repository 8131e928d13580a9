"""Found, not told: the search finds the structures that are known to be best, within how many
structures, and how near the best estimate they are.

Nothing in the package names any of these programs. A change that makes the search look further
shows here as a larger count; one that loses a structure as a failure.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax import device
from prism_jax.egraph import extract
from prism_jax.explore import Form, SearchResult, search
from prism_jax.explore.result import Candidate
from prism_jax.extract import lift
from prism_jax.ir.nodes import Carried, Pointwise
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import Accumulator, Kernel, Loop
from tests.explore import functions

Shapes = tuple[tuple[int, ...], ...]


def shared(x: Any, a: Any, b: Any, c: Any) -> Any:
    return x @ a, x @ b, x @ c


def low_rank(x: Any, a: Any, b: Any) -> Any:
    return x @ (a @ b)


def linear_attention(q: Any, k: Any, v: Any) -> Any:
    return (q @ k.T) @ v


PROGRAMS: dict[str, tuple[Callable[..., Any], Shapes]] = functions.LARGE | {
    "shared": (shared, ((8, 4096), (4096, 1024), (4096, 1024), (4096, 1024))),
    "low_rank": (low_rank, ((16, 4096), (4096, 16), (16, 4096))),
    "linear_attention": (linear_attention, ((8192, 64), (8192, 64), (8192, 64))),
}


@functools.cache
def found(name: str) -> SearchResult:
    function, shapes = PROGRAMS[name]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float16) for shape in shapes]
    program = lift(jax.make_jaxpr(function)(*arguments), name)
    row = device.row("H100")
    forms = [Form(form.program, form.axioms) for form in extract.search(program, row)]
    return search(program, forms, row, 600.0)


# ---- what a structure is, in code


def kernels(candidate: Candidate) -> tuple[Kernel, ...]:
    """The plan's kernels; none where it also calls a library."""
    nodes = candidate.sgraph.nodes
    return candidate.sgraph.kernels if len(candidate.sgraph.kernels) == len(nodes) else ()


def alone(candidate: Candidate) -> Kernel | None:
    """The plan's kernel if it has one and calls nothing else."""
    every = kernels(candidate)
    return every[0] if len(every) == 1 else None


def one_loop(candidate: Candidate) -> Loop | None:
    kernel = alone(candidate)
    return kernel.loops[0] if kernel and len(kernel.loops) == 1 else None


def monoids(loop: Loop | None) -> list[str]:
    return sorted(a.monoid for a in loop.accumulators) if loop else []


def divided_after(candidate: Candidate) -> bool:
    """No step of the loop scales by the norm: only the epilogue does, with the final sum."""
    kernel, loop = alone(candidate), one_loop(candidate)
    if kernel is None or loop is None:
        return False
    scales = ("rsqrt", "sqrt", "div")
    inside = [n for a in loop.accumulators for n in walk([a.summand])]
    after = [n for store in kernel.stores for n in walk([store.value])]
    return not any(isinstance(n, Pointwise) and n.op in scales for n in inside) and any(
        isinstance(n, Pointwise)
        and n.op in scales
        and any(isinstance(below, Carried) for below in walk([n]))
        for n in after
    )


def sums(count: int) -> Callable[[Candidate], bool]:
    return lambda c: monoids(one_loop(c)) == ["sum"] * count


def norm_and(products: int) -> Callable[[Candidate], bool]:
    return lambda c: sums(products + 1)(c) and divided_after(c)


def _running_maximum(accumulators: tuple[Accumulator, ...]) -> bool:
    top = [a for a in accumulators if a.monoid == "max"]
    rest = [a for a in accumulators if a.monoid != "max"]
    return len(top) == 1 and all(a.depends == (top[0].name,) for a in rest)


def online(accumulators: int) -> Callable[[Candidate], bool]:
    """One kernel, one loop: a running maximum, and sums that are rescaled as it grows."""

    def holds(candidate: Candidate) -> bool:
        loop = one_loop(candidate)
        if loop is None or len(loop.accumulators) != accumulators:
            return False
        return _running_maximum(loop.accumulators)

    return holds


def online_split(candidate: Candidate) -> bool:
    """The keys split over the grid, parts of running maxima stored, and a kernel that combines."""
    pair = kernels(candidate)
    if len(pair) != 2 or len(pair[0].loops) != 1:
        return False
    [loop] = pair[0].loops
    parts = {store.tensor for store in pair[0].stores}
    return (
        loop.split is not None and _running_maximum(loop.accumulators) and parts <= {*pair[1].reads}
    )


def nearest(candidate: Candidate) -> bool:
    return monoids(one_loop(candidate)) == ["argmin"]


def two_loops(candidate: Candidate) -> bool:
    kernel = alone(candidate)
    return kernel is not None and len(kernel.loops) == 2


def one_kernel(candidate: Candidate) -> bool:
    return alone(candidate) is not None


def reassociated(candidate: Candidate) -> bool:
    return "contraction-order" in candidate.axioms


@dataclass(frozen=True)
class Known:
    """A structure that must be found.

    `within`: its estimate is at most so many times the best of all. `structures`: of kernels, that
    the whole search looked into, over all forms.
    """

    name: str
    holds: Callable[[Candidate], bool]
    within: float
    structures: int


KNOWN = {
    "RMSNorm + linear": Known("rms_norm_linear", norm_and(1), 1.0, 22),
    "RMSNorm-MLP": Known("rms_norm_mlp", norm_and(2), 1.0, 94),
    "gated MLP, two accumulators": Known("gated_mlp", sums(2), 1.0, 13),
    "LoRA": Known("lora", one_kernel, 1.0, 3),
    "LayerNorm + linear, two loops": Known("layer_norm_linear", two_loops, 1.05, 84),
    "attention": Known("attention_b16", online(3), 1.0, 95),
    "attention, small batch": Known("attention", online_split, 1.0, 88),
    "attention, small batch, one kernel": Known("attention", online(3), 4.0, 88),
    "QK-norm attention": Known("qk_norm_attention", online(3), 4.0, 268),
    "QK-norm attention, small batch": Known("qk_norm_attention", online_split, 1.0, 268),
    "log-sum-exp": Known("log_sum_exp", online(2), 1.0, 6),
    "kernel sum": Known("kernel_sum", sums(1), 1.05, 5),
    "nearest centre": Known("nearest", nearest, 1.05, 32),
    "shared operand": Known("shared", sums(3), 1.0, 19),
    "low rank": Known("low_rank", reassociated, 1.0, 12),
    "linear attention": Known("linear_attention", reassociated, 1.0, 22),
}


@pytest.mark.parametrize("what", KNOWN)
def test_known_structures_are_found(what: str) -> None:
    known = KNOWN[what]
    result = found(known.name)
    assert result.stop == "complete"
    best = result.candidates[0].estimate
    fitting = [c for c in result.candidates if known.holds(c)]
    assert fitting, [c.why for c in result.candidates]
    assert fitting[0].estimate <= known.within * best
    assert result.statistics["structures"] <= known.structures


def test_structures_that_lose_are_told_apart() -> None:
    """The predicates refuse what is not the structure that they name."""
    for what, known in KNOWN.items():
        others = [c for c in found(known.name).candidates if not known.holds(c)]
        assert any(c.why == "XLA" for c in others), what
