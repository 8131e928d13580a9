"""One kernel launch as a value, which another process can make: nothing here imports jax.

In: a compiled kernel, its grid, what it reads and writes. Out: a `Launch`, or its traceable call.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prism_jax.emit.binary import Binary
from prism_jax.ir.nodes import Tensor

if TYPE_CHECKING:
    from prism_jax.launch.cuda import Kernel


@dataclasses.dataclass(frozen=True)
class Launch:
    """A kernel with everything it is launched with, but the arrays.

    Attributes:
      binary: the kernel.
      grid: one to three numbers of blocks.
      operands: tensors read, in the order of the first pointers; sizes are numbers.
      results: tensors written, in the order of the last pointers; sizes are numbers.
      partial: names of results whose values depend on how the work was cut (parts that a later
        kernel combines): two right kernels may disagree about them.
    """

    binary: Binary
    grid: tuple[int, ...]
    operands: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    partial: tuple[str, ...] = ()

    def call(self, *, zeroed: bool = False) -> Kernel:
        """The launch as a function of its operands; with `zeroed`, results start as zeros.

        Raises:
          ValueError: operands or results do not fit the kernel's signature.
        """
        import jax

        from prism_jax.launch.cuda import kernel_call

        types = [jax.ShapeDtypeStruct(tuple(map(int, t.shape)), t.dtype) for t in self.results]
        return kernel_call(self.binary, self.grid, types, zeroed=range(len(types) * zeroed))
