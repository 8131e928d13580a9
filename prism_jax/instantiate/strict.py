"""The same sGraph with its float32 products computed more exactly.

In: an sGraph. Out: the sGraph whose products of float32 operands, where the user left the algorithm
to the platform, are asked for in three TF32 passes instead of one; or the very same object if there
are none. A plan that the accuracy contract refuses is tried again in this form: XLA computes small
products without TF32, so one pass may be less accurate than the user's own program.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Precision, Reduce, Store, Tensor, at
>>> from prism_jax.ir.sgraph import LibraryCall
>>> i, j, k = Axis("i", 4), Axis("j", 4), Axis("k", 8)
>>> x, y = Tensor("x", (4, 8), "float32"), Tensor("y", (8, 4), "float32")
>>> product = Pointwise("mul", (Load(x, (at(i), at(k))), Load(y, (at(k), at(j)))))
>>> body = Reduce("sum", (k,), product, Precision("float32", "float32", "float32"))
>>> out = Store(Tensor("o", (4, 4), "float32"), (at(i), at(j)), body)
>>> graph = SGraph("f", (x, y), (LibraryCall("f", "xla", (out,)),), (out.tensor,))
>>> stricter(graph) is graph  # nothing here is a kernel of ours
True
"""

from __future__ import annotations

from dataclasses import replace

from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import Precision
from prism_jax.ir.sgraph import Kernel, SGraph

THREE_PASSES = "high"


def stricter(sgraph: SGraph) -> SGraph:
    """See the module."""
    rewriting = Rewriting(precision=_exact)
    steps = (rewriting.kernel(n) if isinstance(n, Kernel) else n for n in sgraph.nodes)
    new = replace(sgraph, nodes=tuple(steps))
    return sgraph if new.digest == sgraph.digest else new


def _exact(precision: Precision) -> Precision:
    if (precision.operand, precision.algorithm) != ("float32", "default"):
        return precision
    return replace(precision, algorithm=THREE_PASSES)
