"""Which of the search's candidates are worth measuring whole.

In: a program, what the search found for it, a device, options. Out: a few candidates, in the order
in which they are considered; XLA's own version is one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from prism_jax.device import Device
from prism_jax.explore.result import Candidate, SearchResult
from prism_jax.instantiate.tune import Rankings, ranked, shared_values
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel, SGraph
from prism_jax.options import Options

__all__ = ["shortlist"]

STRUCTURES, FORMS = 5, 4
"""The most structures with kernels of ours, and the most other forms of the program for XLA."""
LOOKED_AT = 36
"""Kernels of candidates for a GPU that the model of tries is asked about; it takes 0.2 s."""
FORMS_EACH = 2
"""Of one structure."""
WORTH = {"gpu": 2.0, "cpu": 1.5}
"""Kernels of ours are worth measuring up to so many times the estimate of XLA's own version, which
is rough: of a gated MLP it was 0.7 of what was measured, of our kernel 1.5. On a host so are other
forms for XLA.
"""


def shortlist(
    program: Program,
    result: SearchResult,
    device: Device,
    options: Options,
    rankings: Rankings,
) -> list[Candidate]:
    """Other forms by XLA, and the best structures with kernels of ours; those without XLA's parts,
    which are costed roughly, come first. `rankings` takes those of kernels for a GPU.
    """
    own = next(c.estimate for c in result.candidates if c.why == "XLA")
    promising = own * (1.0 if device.kind == "gpu" else WORTH["cpu"])
    forms = [c for c in result.candidates if not c.kernels]
    found = [c for c in forms if c.why == "XLA" or c.estimate <= promising][: FORMS + 1]
    if options.backend not in (None, "jnp"):
        found = []
    backend = "triton" if device.kind == "gpu" else "lax"
    if options.backend in (None, backend):
        ours = [c for c in result.candidates if c.kernels]
        worth = [c for c in ours if c.estimate < own * WORTH[device.kind]] or ours[:1]
        pure = [c for c in worth if c.kernels == len(c.sgraph.nodes)]
        mixed = [c for c in worth if c.kernels < len(c.sgraph.nodes)]
        if device.kind == "cpu":
            found += _structures(pure, program.digest, STRUCTURES // 2)
        else:
            found += _for_gpu(_distinct(pure), device, rankings)[: STRUCTURES - 1]
        found += _distinct(mixed)[:1]
    return sorted(found, key=lambda c: (c.kernels < len(c.sgraph.nodes), c.estimate))


def _for_gpu(
    candidates: Sequence[Candidate], device: Device, rankings: Rankings
) -> list[Candidate]:
    """The search's best two, then the best form of each other structure by the model that ranks
    tries, then other forms. That model knows what the search's does not, whether enough is on its
    way to keep the memory busy; the search's knows that kernels take each other's place in the
    cache.
    """
    first = list(candidates[: STRUCTURES // 2])
    forms = Counter(c.why for c in first)
    looked_at: list[Candidate] = []
    for candidate in candidates[len(first) :]:
        forms[candidate.why] += 1
        kernels = sum(c.kernels for c in looked_at) + candidate.kernels
        if candidate.why not in {c.why for c in first} and forms[candidate.why] <= FORMS_EACH:
            looked_at += [candidate] if kernels <= LOOKED_AT else []
    others = _ranked(looked_at, device, rankings)
    structures = {c.why: c for c in reversed(others)}
    best = sorted(structures.values(), key=others.index)
    return [*first, *best, *(c for c in candidates if c not in first and c not in best)]


def _ranked(candidates: Sequence[Candidate], device: Device, rankings: Rankings) -> list[Candidate]:
    """The candidates, those first whose kernels' best tries are expected to be fastest."""

    def best(kernel: Kernel, sgraph: SGraph, shared: Mapping[str, int]) -> float:
        rows = ranked(kernel, sgraph, device, shared, rankings).rows.values()
        return min((row.seconds for row in rows), default=math.inf)

    def expected(candidate: Candidate) -> float:
        graph = candidate.sgraph
        own = shared_values(graph, dict(candidate.sizes))[0]
        return sum(best(kernel, graph, own) for kernel in graph.kernels)

    return sorted(candidates, key=expected)


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate for each way of cutting into kernels: near-copies would only repeat it."""
    seen: set[tuple[object, ...]] = set()
    kept: list[Candidate] = []
    for candidate in candidates:
        key = (candidate.why, candidate.kernels, candidate.form.digest)
        if key not in seen:
            seen.add(key)
            kept.append(candidate)
    return kept


def _structures(candidates: Sequence[Candidate], own: str, most: int) -> list[Candidate]:
    """The best form of each of the best structures, and the user's own form of the same structure:
    a host's products are not so much faster than rounding alike is worth.
    """
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        forms = found.setdefault(candidate.why, [])
        if not forms or (len(forms) == 1 and candidate.form.digest == own):
            forms.append(candidate)
    return [candidate for forms in list(found.values())[:most] for candidate in forms]
