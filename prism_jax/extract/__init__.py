"""Jaxprs to programs: `extract` cuts a jaxpr into regions, `lift` gives one region's program."""

from prism_jax.extract.lift import lift
from prism_jax.extract.refuse import NotLiftable

__all__ = ["NotLiftable", "lift"]
