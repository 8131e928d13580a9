"""The rules, one file for each group of primitives; importing this package fills the table."""

from prism_jax.extract.rules import (  # noqa: F401
    contraction,
    elementwise,
    indexing,
    layout,
    reduction,
)
