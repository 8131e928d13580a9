"""The symbolic search: e-graph forms, kernel structures, mappings, splits, and bounds that are
proofs.
"""

from __future__ import annotations

import time

from prism_jax.device import Device
from prism_jax.explore.family import Extracted, Families
from prism_jax.explore.result import Candidate, Certificate, SearchResult
from prism_jax.explore.search import Form, search
from prism_jax.ir.program import Program, loads_of
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
    read = inputs_read(program)
    forms = [Form(a.program, a.axioms) for a in found if inputs_read(a.program) == read]
    return Extracted(forms, saturated, decisions)


def inputs_read(program: Program) -> list[frozenset[str]]:
    """Of each output the inputs that it is made of. A form that reads fewer (x - x is 0, the shares
    of a softmax add up to 1) is equal for finite numbers only: it would hide that there are others.
    """
    return [
        frozenset(load.tensor.name for load in loads_of([store.value])) for store in program.outputs
    ]


families = Families(_forms)
"""What this process has searched."""
