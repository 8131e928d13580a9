"""From a function and its arguments to a closed jaxpr."""

from prism_jax.trace.trace import Traced, trace

__all__ = ["Traced", "trace"]
