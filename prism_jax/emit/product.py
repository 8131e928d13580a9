"""What a summand is made of, for the emitters: the definition that costs use too (`ir.product`)."""

from __future__ import annotations

from prism_jax.ir.product import Sides, factors, movable, sides

__all__ = ["Sides", "factors", "movable", "sides"]
