"""From a plan to a JAX primitive with all its rules: `prism_call` and `prism_tangent`."""

from prism_jax.launch.call import AsWritten, Executable, Replan, Runnable, bind, freeze
from prism_jax.launch.lower import PLATFORMS
from prism_jax.launch.region import FrozenJaxpr
from prism_jax.launch.rewritten import Cut, Kept, Rewritten, Step
from prism_jax.launch.tangent import prism_tangent_p

__all__ = [
    "PLATFORMS",
    "AsWritten",
    "Cut",
    "Executable",
    "FrozenJaxpr",
    "Kept",
    "Replan",
    "Rewritten",
    "Runnable",
    "Step",
    "bind",
    "freeze",
    "prism_tangent_p",
]
