"""Nodes of a program as jax.numpy source: the expressions of plain jnp and of blocked lax.

In: a node, and what the axes range over here (`Range`; an axis that is not mentioned is whole).
Out: a `Value`, the name of an array with one dimension for each of its axes, and the lines that
  compute it.

Invariants: a node is computed once for each binding of its free axes; arithmetic of reals runs in
the program's compute dtype; a contraction is a `dot_general` of operands in their declared dtype,
and its product is never built; nothing relies on jax's implicit promotion of dtypes or ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from prism_jax.emit import array_access, array_reduce
from prism_jax.emit.names import Names
from prism_jax.emit.scopes import Scope, fitted
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Carried,
    Const,
    Iota,
    Load,
    Node,
    Pointwise,
    Reduce,
)
from prism_jax.ir.ops import OPS
from prism_jax.ir.product import factors

__all__ = ["Env", "Range", "Terms", "Value", "number_text"]


@dataclass(frozen=True)
class Range:
    """What an axis ranges over: `size` elements from `start` (text; None is 0), known from scope
    `depth` on.

    `size` None: the single element `start`, so that arrays have no dimension for the axis. `live`:
    text of a mask of the elements that count, where a last tile overlaps the one before. `python`:
    `start` is a variable of a Python loop over the whole axis.
    """

    axis: Axis
    start: str | None
    size: int | None
    depth: int = 0
    live: str | None = None
    python: bool = False


Env: TypeAlias = Mapping[Axis, Range]


@dataclass(frozen=True)
class Value:
    """An array in the emitted source. A literal real has the dtype "" and takes that of its
    neighbours.
    """

    text: str
    axes: tuple[Axis, ...]
    dtype: str
    depth: int = 0


@dataclass
class Terms:
    """Writes values into `scope`, the innermost scope that is open.

    Attributes:
      compute: dtype of real arithmetic.
      tensors: source text of each tensor by name, and the scope depth where it exists.
      order: rank of each axis in the dimensions of arrays that could have any order.
      unroll: longest reduction of a body that is no product to be written as a sum of slices.
      moving: axes of which only a tile is seen at a time. What reduces over others and depends on
        some of them only is computed once, whole, and read in tiles.
      arg_by_value: the index of the best is found by comparing with the best: two passes that
        vectorise, where XLA's CPU backend reduces pairs one by one.
    """

    compute: str
    tensors: dict[str, tuple[str, int]]
    order: Mapping[Axis, int] = field(default_factory=dict[Axis, int])
    unroll: int = 0
    names: Names = field(default_factory=lambda: Names(("jax", "jnp", "lax", "np")))
    scope: Scope[Value] = field(default_factory=lambda: Scope[Value]())
    moving: frozenset[Axis] = frozenset()
    arg_by_value: bool = False

    # --- scopes and lines -----------------------------------------------------------------------

    def assign(self, wish: str, text: str, axes: tuple[Axis, ...], dtype: str, depth: int) -> Value:
        """A new name for `text`, written in the scope at `depth`."""
        name = self.names.new(wish)
        shape = ", ".join(axis.name for axis in axes)
        first, *more = fitted(f"{name} = {text}")
        comment = f"  # [{shape}]"
        self.scope.at(depth).add(first + comment if len(first + comment) <= 92 else first, *more)
        return Value(name, axes, dtype, depth)

    def range_of(self, axis: Axis, env: Env) -> Range:
        """What `axis` ranges over in `env`."""
        found = env.get(axis)
        return found if found is not None else Range(axis, None, int(axis.size))

    def shown(self, axes: Iterable[Axis], env: Env) -> tuple[Axis, ...]:
        """The axes that are dimensions of arrays here, in the order preferred for new arrays."""
        kept = [a for a in axes if self.range_of(a, env).size is not None]
        return tuple(sorted(kept, key=lambda a: (self.order.get(a, len(self.order)), a)))

    def sizes(self, axes: Iterable[Axis], env: Env) -> tuple[int, ...]:
        """Lengths of the dimensions for `axes`."""
        return tuple(self.range_of(a, env).size or 1 for a in axes)

    # --- values ---------------------------------------------------------------------------------

    def value(self, node: Node, env: Env) -> Value:
        """The node as an array, computed where it was not yet."""
        key = (node, tuple(env.get(a) for a in node.axes_free))
        found = self.scope.find(key)
        if found is None:
            found = self._compute(node, env)
            self.scope.at(found.depth).know(key, found)
        return found

    def bind(self, node: Carried, env: Env, value: Value) -> None:
        """Says that `node` is `value` in the scope that is open now."""
        self.scope.know((node, tuple(env.get(a) for a in node.axes_free)), value)

    def prepare(self, roots: Iterable[Node]) -> None:
        """Computes everything below `roots` over whole axes, operands first: no deep recursion
        later.
        """
        seen: set[Node] = set()
        stack = [(root, False) for root in reversed(list(roots))]
        while stack:
            node, ready = stack.pop()
            if ready:
                self.value(node, {})
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((need, False) for need in reversed(self._needs(node)))

    def _needs(self, node: Node) -> tuple[Node, ...]:
        if isinstance(node, Reduce):
            return factors(node.body) if node.monoid == "sum" else (node.body,)
        return node.index_nodes if isinstance(node, Load) else node.children

    def _compute(self, node: Node, env: Env) -> Value:
        match node:
            case Const():
                return Value(literal(node), (), "" if node.sort == REAL else node.sort)
            case Iota():
                return self._iota(node, env)
            case Load():
                return array_access.load(self, node, env)
            case Pointwise():
                return self._pointwise(node, env)
            case Reduce():
                return array_reduce.reduction(self, node, env)
            case Carried():
                raise ValueError(f"{node.accumulator} ({node.phase}) is used where it has no value")
            case _:
                raise TypeError(f"no array form of {type(node).__name__}")

    def _iota(self, node: Iota, env: Env) -> Value:
        span = self.range_of(node.axis, env)
        if span.size is None:
            text = f"jnp.asarray({span.start or 0}, jnp.{node.sort_})"
            return self.assign(node.axis.name, text, (), node.sort_, span.depth)
        text = f"jnp.arange({span.size}, dtype=jnp.{node.sort_})"
        if span.start is not None:
            text += f" + jnp.asarray({span.start}, jnp.{node.sort_})"
        return self.assign(node.axis.name, text, (node.axis,), node.sort_, span.depth)

    def _pointwise(self, node: Pointwise, env: Env) -> Value:
        row = OPS[node.op]
        values = [self.argument(arg, env) for arg in node.args]
        reals = [v for v, a in zip(values, node.args, strict=True) if a.sort == REAL]
        alone = all(v.dtype == "" for v in reals)  # literals would take jax's own default dtype
        if reals and (alone or row.jnp.startswith("lax.")):  # and lax does not promote them
            values = [
                Value(f"jnp.{self.compute}({v.text})", v.axes, self.compute) if v.dtype == "" else v
                for v in values
            ]
        axes = self._joint(values)
        depth = max((v.depth for v in values), default=0)
        texts = [self.align(v, axes) for v in values]
        # An opaque cast stays in its dtype, to be widened by those that use it.
        dtype = str(node.parameter) if node.op == "cast" else self.width(node.sort)
        return self.assign(node.op, operation(node, row.jnp, texts), axes, dtype, depth)

    def argument(self, node: Node, env: Env) -> Value:
        """The node's value in the dtype of arithmetic."""
        value = self.value(node, env)
        if node.sort == REAL and value.dtype not in ("", self.compute):
            return self.convert(value, self.compute)
        return value

    def width(self, sort: str) -> str:
        """The dtype of arithmetic in a sort."""
        return self.compute if sort == REAL else sort

    def _joint(self, values: Iterable[Value]) -> tuple[Axis, ...]:
        """The axes of all values: in the order of a value that has them all, if there is one."""
        values = list(values)
        every = {a for v in values for a in v.axes}
        for value in values:
            if len(value.axes) == len(every):
                return value.axes
        return tuple(sorted(every, key=lambda a: (self.order.get(a, len(self.order)), a)))

    def convert(self, value: Value, dtype: str) -> Value:
        """The value in another dtype, once."""
        if value.dtype == dtype:
            return value
        if value.dtype == "":
            return Value(f"jnp.{dtype}({value.text})", value.axes, dtype, value.depth)
        key = ("convert", value.text, dtype)
        found = self.scope.find(key)
        if found is None:
            text = f"{value.text}.astype(jnp.{dtype})"
            found = self.assign(
                f"{value.text}_{short(dtype)}", text, value.axes, dtype, value.depth
            )
            self.scope.at(value.depth).know(key, found)
        # The same array may have been read along other axes: x[i] and x[j] of a square.
        return Value(found.text, value.axes, dtype, found.depth)

    def number(self, amount: int, sort: str) -> Value:
        """A whole number as a constant of `sort`."""
        return Value(literal(Const(amount, sort)), (), "" if sort == REAL else sort)

    def align(self, value: Value, axes: tuple[Axis, ...]) -> str:
        """Text of the value with exactly the dimensions `axes`, of length 1 where it has none."""
        if not value.axes:
            return value.text
        kept = [a for a in axes if a in value.axes]
        text = value.text
        if tuple(kept) != value.axes:
            text += f".transpose({', '.join(str(value.axes.index(a)) for a in kept)})"
        if len(kept) < len(axes):
            text += f"[{', '.join(':' if a in value.axes else 'None' for a in axes)}]"
        return text

    def spread(self, value: Value, axes: tuple[Axis, ...], env: Env) -> str:
        """Text of the value with the dimensions `axes` at full length."""
        if set(value.axes) == set(axes) and value.dtype:
            return self.align(value, axes)
        return f"jnp.broadcast_to({self.align(value, axes)}, {self.sizes(axes, env)})"

    def only_live(
        self, value: Value, axes: Iterable[Axis], env: Env, identity: float | int | bool
    ) -> Value:
        """The value with `identity` where a last tile overlaps the one before along one of
        `axes`.
        """
        for axis in axes:
            live = self.range_of(axis, env).live
            if live is None:
                continue
            key = ("live", value.text, value.axes, axis, live, repr(identity))
            known = self.scope.find(key)
            if known is None:
                dims = value.axes if axis in value.axes else (*value.axes, axis)
                mask = self.align(Value(live, (axis,), "bool"), dims)
                other = f"jnp.asarray({number_text(identity)}, {value.text}.dtype)"
                text = f"jnp.where({mask}, {self.align(value, dims)}, {other})"
                depth = max(value.depth, self.range_of(axis, env).depth)
                made = self.assign("counted", text, dims, value.dtype, depth)
                known = self.scope.at(depth).know(key, made)
            value = known
        return value

    def fold(
        self,
        monoid: str,
        body: Value,
        summed: tuple[Axis, ...],
        env: Env,
        dtype: str,
        index_sort: str | None,
    ) -> Value:
        """The value reduced along `summed`; an axis that it does not have counts all the same."""
        return array_reduce.fold(self, monoid, body, summed, env, dtype, index_sort)


def literal(node: Const) -> str:
    """A constant as source text; integers carry their dtype, reals take their neighbours'."""
    if node.sort == "bool":
        return f"jnp.bool_({bool(node.value)})"
    if node.sort != REAL:
        return f"jnp.{node.sort}({node.value})"
    value = float(node.value)
    if math.isnan(value):
        return "jnp.nan"
    if math.isinf(value):
        return "jnp.inf" if value > 0 else "(-jnp.inf)"
    return repr(value) if value >= 0 and math.copysign(1, value) > 0 else f"({value!r})"


def number_text(value: float | int | bool) -> str:
    """A number as Python text, infinities and NaN included."""
    return f'float("{value}")' if isinstance(value, float) else repr(value)


def short(dtype: str) -> str:
    """`float32` as `f32`: for names."""
    return (
        dtype.replace("bfloat", "bf").replace("float", "f").replace("uint", "u").replace("int", "i")
    )


def operation(node: Pointwise, template: str, texts: list[str]) -> str:
    """The row's jnp text. Reals divide with `/`: `lax.div` does not promote literals."""
    if node.op == "div" and node.sort == REAL:
        return f"{texts[0]} / {texts[1]}"
    parameter = node.parameter
    shown = (
        f"jnp.{str(parameter).replace('bool', 'bool_')}"
        if isinstance(parameter, str)
        else repr(parameter)
    )
    return template.format(*texts, p=shown)
