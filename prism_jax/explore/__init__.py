"""The symbolic search: e-graph forms, kernel structures, mappings, splits, and bounds that are
proofs.
"""

from __future__ import annotations

import time

from prism_jax.device import Device
from prism_jax.explore.family import Extracted, Families
from prism_jax.explore.result import Candidate, Certificate, SearchResult
from prism_jax.explore.search import Form, search
from prism_jax.ir.program import Program
from prism_jax.options import Options

__all__ = ["Candidate", "Certificate", "Form", "SearchResult", "explore", "families", "search"]


def explore(program: Program, device: Device, options: Options) -> SearchResult:
    """Ranked sGraphs for a program within `options.search_seconds`; deterministic for equal
    arguments (up to the budget). A program that differs from an earlier one in sizes or dtypes only
    is instantiated, not searched (see `family`).
    """
    return families.search(program, device, time.perf_counter() + options.search_seconds)


def _forms(program: Program, device: Device) -> Extracted:
    from prism_jax.egraph import extract
    from prism_jax.egraph.decisions import recording
    from prism_jax.egraph.run import StopReason

    with recording() as decisions:
        found = extract.search(program, device)
    saturated = found.saturation.stop is StopReason.SATURATED
    return Extracted([Form(a.program, a.axioms) for a in found], saturated, decisions)


families = Families(_forms)
"""What this process has searched."""
