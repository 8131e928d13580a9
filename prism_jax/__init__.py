"""A symbolic superoptimizer for JAX: the same function, in fewer and faster kernels.

>>> import jax.numpy as jnp
>>> import prism_jax as prism
>>> @prism.jit
... def normalise(x):
...     return x / jnp.sum(x, axis=-1, keepdims=True)
>>> normalise(jnp.array([1.0, 3.0]))
Array([0.25, 0.75], dtype=float32)
"""

from prism_jax import cache
from prism_jax.api import bisect, explain, jit, optimize, search
from prism_jax.errors import PrismError, PrismWarning
from prism_jax.options import Options, options
from prism_jax.report import Bisection, Report

__version__ = "0.1.0"

__all__ = [
    "Bisection",
    "Options",
    "PrismError",
    "PrismWarning",
    "Report",
    "bisect",
    "cache",
    "explain",
    "jit",
    "optimize",
    "options",
    "search",
]
