"""Property-based testing of rewrites and of functions under `prism.jit`, with Hypothesis.

In three lines:

    def test_my_function():
        fast = prism.jit(my_function)
        assert_equivalent(my_function, fast, arrays((8, 16)), arrays((16,)))

Tests of their own under `@given` want `@settings(deadline=None)`: a first call compiles.
"""

from prism_jax.testing.arrays import arrays, program_inputs, shapes
from prism_jax.testing.equivalence import assert_equivalent
from prism_jax.testing.functions import JaxFunction, jax_functions
from prism_jax.testing.programs import programs

__all__ = [
    "JaxFunction",
    "arrays",
    "assert_equivalent",
    "jax_functions",
    "program_inputs",
    "programs",
    "shapes",
]
