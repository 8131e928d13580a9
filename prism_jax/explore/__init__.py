"""The symbolic search: e-graph forms, kernel structures, mappings, splits, and bounds that are
proofs.
"""

from __future__ import annotations

from prism_jax.device import Device
from prism_jax.explore.result import Candidate, Certificate, SearchResult
from prism_jax.explore.search import Form, search
from prism_jax.ir.program import Program
from prism_jax.options import Options

__all__ = ["Candidate", "Certificate", "Form", "SearchResult", "explore", "search"]


def explore(program: Program, device: Device, options: Options) -> SearchResult:
    """Ranked sGraphs for a program within `options.search_seconds`; deterministic for equal
    arguments (up to the budget).
    """
    from prism_jax.egraph.extract import alternatives

    forms = [Form(a.program, a.axioms) for a in alternatives(program, device)]
    return search(program, forms, device, options.search_seconds)
