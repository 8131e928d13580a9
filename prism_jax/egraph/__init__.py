"""The e-graph: programs as classes of equal terms, rules that find equalities, and the choice of
cheap forms.

In: a `Program`. Out: `alternatives(program)`: equivalent programs, the program itself first. One
file per concept: `core` (the engine), `run` (saturation), `plain` (rules over plain terms), `facts`
and `normal` (the tensor language), `language` (encoding), `matching` and `contraction` (rules of
the tensor language), `cost`, `decode`, `signature` and `extract` (choosing), `explain` and `draw`.
"""

from prism_jax.egraph.core import EGraph
from prism_jax.egraph.explain import Explanation, explain
from prism_jax.egraph.extract import Alternative, Alternatives, alternatives, search
from prism_jax.egraph.language import Encoded, encode
from prism_jax.egraph.run import Limits, Saturation, StopReason, saturate

__all__ = [
    "Alternative",
    "Alternatives",
    "EGraph",
    "Encoded",
    "Explanation",
    "Limits",
    "Saturation",
    "StopReason",
    "alternatives",
    "encode",
    "explain",
    "saturate",
    "search",
]
