"""Jaxprs to programs: `extract` cuts a jaxpr into regions, `lift` gives one region's program."""

from prism_jax.extract.inner import rewrite_subjaxprs
from prism_jax.extract.lift import lift
from prism_jax.extract.refuse import NotLiftable
from prism_jax.extract.regions import Equations, Extraction, Region, extract

__all__ = [
    "Equations",
    "Extraction",
    "NotLiftable",
    "Region",
    "extract",
    "lift",
    "rewrite_subjaxprs",
]
