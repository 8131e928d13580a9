"""The rules, one file for each group of primitives; importing this package fills the table."""

from prism_jax.extract.rule import RULES
from prism_jax.extract.rules import contraction, elementwise, indexing, layout, reduction

__all__ = ["GROUPS", "RULES"]

GROUPS = (elementwise, layout, reduction, contraction, indexing)
