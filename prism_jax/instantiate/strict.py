"""The same sGraph with its float32 products computed more exactly.

In: an sGraph. Out: the sGraph whose products of float32 operands, where the user left the algorithm
to the platform, are asked for in three TF32 passes instead of one; or the very same object if there
are none. A plan that the accuracy contract refuses is tried again in this form: XLA computes small
products without TF32, so one pass may be less accurate than the user's own program.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Precision, Reduce, Store, Tensor, at
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

from prism_jax.ir.nodes import Node, Precision, Reduce, Store
from prism_jax.ir.rewrite import rebuild
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop, SGraph

THREE_PASSES = "high"


def stricter(sgraph: SGraph) -> SGraph:
    """See the module."""
    memo: dict[Node, Node] = {}

    def term(node: Node) -> Node:
        if node not in memo:
            new = rebuild(node, term)
            if isinstance(new, Reduce):
                new = replace(new, precision=_exact(new.precision))
            memo[node] = new
        return memo[node]

    def store(one: Store) -> Store:
        return replace(one, value=term(one.value))

    def accumulator(one: Accumulator) -> Accumulator:
        rescale = None if one.rescale is None else term(one.rescale)
        precision = _exact(one.precision)
        return replace(one, summand=term(one.summand), rescale=rescale, precision=precision)

    def loop(one: Loop) -> Loop:
        return replace(
            one,
            accumulators=tuple(map(accumulator, one.accumulators)),
            stores=tuple(map(store, one.stores)),
            inner=tuple(map(loop, one.inner)),
        )

    def node(one: Kernel | LibraryCall) -> Kernel | LibraryCall:
        if isinstance(one, LibraryCall):
            return one
        return replace(one, loops=tuple(map(loop, one.loops)), stores=tuple(map(store, one.stores)))

    new = replace(sgraph, nodes=tuple(map(node, sgraph.nodes)))
    return sgraph if new.digest == sgraph.digest else new


def _exact(precision: Precision | None) -> Precision | None:
    if precision is None or (precision.operand, precision.algorithm) != ("float32", "default"):
        return precision
    return replace(precision, algorithm=THREE_PASSES)
