"""The checker: search is not trusted (design, section 7).

Three independent layers, none of which shares code with the explorer: a proof for all sizes, a
finite-field test, and the accuracy contract on what was compiled. `verify` runs them.
"""

from __future__ import annotations

from prism_jax.verify.contract import check
from prism_jax.verify.evidence import Evidence, verify
from prism_jax.verify.field import FieldResult
from prism_jax.verify.proof import Proof, Refusal, prove, replay
from prism_jax.verify.results import ContractResult

__all__ = [
    "ContractResult",
    "Evidence",
    "FieldResult",
    "Proof",
    "Refusal",
    "check",
    "prove",
    "replay",
    "verify",
]
