"""Nodes of a program as Triton source: one line for each node, on tiles whose dimensions are named.

In: a node and the dimension that each axis is at this place (`Env`). Out: a `Value`: the name of a
tile, its dimensions in the kernel's order, its dtype. Lines go to the outermost loop in which all
operands exist.

Invariants: a node is computed once for each binding of its free axes; lanes that are no element of
an axis are masked where it matters: at loads, before a reduction (with the monoid's identity), at
stores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from prism_jax.emit.names import Names
from prism_jax.emit.scopes import Scope, fitted
from prism_jax.emit.triton import access, exponentials, reductions
from prism_jax.emit.triton.operators import literal, operation, tl_dtype, typed_literal
from prism_jax.emit.triton.spans import Dimension, Key, Layout
from prism_jax.ir.nodes import REAL, Axis, Carried, Const, Iota, Load, Node, Pointwise, Reduce

__all__ = ["Env", "Span", "Tiles", "Value"]


@dataclass(frozen=True)
class Span:
    """A dimension at a place in the source: where its tile starts (text; None is 0), since which
    depth.
    """

    key: Key
    axis: Axis
    tile: int
    width: int
    start: str | None
    depth: int
    ragged: bool


Env: TypeAlias = Mapping[Axis, Span]
"""The span of each axis of the grid and of the open loops; other axes are held whole."""


@dataclass(frozen=True)
class Value:
    """A tile. `zero`: dimensions whose lanes outside the axis are known to hold zeros. dtype "": a
    literal.
    """

    text: str
    dims: tuple[Key, ...]
    dtype: str
    depth: int = 0
    zero: frozenset[Key] = frozenset()


@dataclass
class Tiles:
    """Writes values into `scope`, the innermost scope that is open.

    Attributes:
      compute: dtype of real arithmetic.
      layout: widths and order of all dimensions, and which products are `tl.dot`.
      pointers: name of the pointer of each tensor.
      exp2: write exp(x) as exp2(x * log2(e)), with constants of x folded into the factor.
      rounded: all that is written is rounded to 16 bits or fewer.
      threads: of one block.
      blocks: axes that are spread over several blocks, if loads are to say who reads them again.
      carried: value of each accumulator by name and phase, as far as it has one now.
      helpers: names of the helper functions called so far.
      holds: a selection whose mask is true everywhere in the loop that is open; so are others by
        the same mask.
      elements: of a thread, for each name.
      maxima: what each running maximum is the maximum of.
      apart: whether the open loop loads something once as an operand and once for other uses.
    """

    compute: str
    layout: Layout
    pointers: Mapping[str, str]
    names: Names
    exp2: bool = False
    rounded: bool = False
    threads: int = 128
    blocks: frozenset[Axis] = frozenset()
    scope: Scope[Value] = field(default_factory=lambda: Scope[Value]())
    carried: dict[tuple[str, str], Value] = field(default_factory=dict[tuple[str, str], Value])
    spans: dict[Key, Span] = field(default_factory=dict[Key, Span])
    helpers: set[str] = field(default_factory=set[str])
    holds: Pointwise | None = None
    elements: dict[str, int] = field(default_factory=dict[str, int])
    apart: bool = False
    maxima: dict[str, Node] = field(default_factory=dict[str, Node])

    # --- names, lines, dimensions ---------------------------------------------------------------

    def assign(
        self,
        wish: str,
        text: str,
        dims: tuple[Key, ...],
        dtype: str,
        depth: int,
        comment: str | None = None,
        zero: frozenset[Key] = frozenset(),
    ) -> Value:
        """A new name for `text`, written in the scope at `depth`, with a comment."""
        name = self.names.new(wish)
        count = math.prod(self.width(k) for k in dims)
        self.elements[name] = -(-count // self.threads)
        first, *more = fitted(f"{name} = {text}")
        shown = f"  # {name_of(dims) if comment is None else comment}" if comment != "" else ""
        scope = self.scope.at(depth)
        if len(first + shown) <= 96:
            scope.add(first + shown, *more)
        else:
            scope.add(*([shown.strip()] if shown else []), first, *more)
        return Value(name, dims, dtype, depth, zero)

    def span(self, axis: Axis, env: Env) -> Span:
        """The span of `axis` at a place."""
        found = env.get(axis)
        return found if found is not None else self.open(self.layout.held(axis), None, 0)

    def open(self, dimension: Dimension, start: str | None, depth: int) -> Span:
        """The span of a dimension whose tile starts at `start`."""
        key, axis = dimension.key, dimension.axis
        span = Span(key, axis, dimension.tile, dimension.width, start, depth, dimension.ragged)
        self.spans[key] = span
        return span

    def dims(self, axes: Iterable[Axis], env: Env) -> tuple[Key, ...]:
        """The tile dimensions of some axes, in order."""
        spans = [self.span(a, env) for a in axes]
        return self.sorted(s.key for s in spans if s.width > 1)

    def sorted(self, keys: Iterable[Key]) -> tuple[Key, ...]:
        """Dimensions in the kernel's order."""
        order = self.layout.order
        return tuple(sorted(dict.fromkeys(keys), key=lambda k: (order.get(k, len(order)), k)))

    def width(self, key: Key) -> int:
        """Lanes of a dimension."""
        return self.layout.dimensions[key].width

    def shape(self, dims: Iterable[Key]) -> str:
        """Text of a tile's shape."""
        widths = [str(self.width(k)) for k in dims]
        return f"({', '.join(widths)}{',' if len(widths) == 1 else ''})"

    def lane(self, key: Key) -> Value:
        """The positions in the tile of a dimension: 0, 1, ..."""
        found = self.scope.find(("lane", key))
        if found is None:
            axis = self.spans[key].axis
            name = f"{axis.name}_lane"
            found = self.assign(name, f"tl.arange(0, {self.width(key)})", (key,), "int32", 0, "")
            self.scope.at(0).know(("lane", key), found)
        return found

    def inside(self, key: Key) -> Value | None:
        """The mask of the lanes that are elements of the axis; None where all are."""
        span = self.spans[key]
        if not span.ragged:
            return None
        found = self.scope.find(("inside", key, span))
        if found is None:
            size, lane = int(span.axis.size), self.lane(key).text
            if span.start is None:
                text = f"{lane} < {min(span.tile, size)}"
            elif size % span.tile == 0:
                text = f"{lane} < {span.tile}"
            elif span.width == span.tile:
                text = f"{lane} < {size} - {span.start}"
            else:
                text = f"{lane} < tl.minimum({span.tile}, {size} - {span.start})"
            comment = f"{span.axis.name} < {size}"
            found = self.assign(f"{span.axis.name}_mask", text, (key,), "bool", span.depth, comment)
            self.scope.at(span.depth).know(("inside", key, span), found)
        return found

    def align(self, value: Value, dims: tuple[Key, ...]) -> str:
        """Text of the value with the dimensions `dims`, of length 1 where it has none; scalars as
        they are.
        """
        if not value.dims:
            return value.text
        kept = tuple(k for k in dims if k in value.dims)
        value = self.permuted(value, kept)
        if len(kept) == len(dims):
            return value.text
        return f"{value.text}[{', '.join(':' if k in kept else 'None' for k in dims)}]"

    def permuted(self, value: Value, dims: tuple[Key, ...]) -> Value:
        """The value with its dimensions in another order."""
        if value.dims == dims:
            return value
        key = ("permuted", value.text, dims)
        found = self.scope.find(key)
        if found is None:
            order = ", ".join(str(value.dims.index(k)) for k in dims)
            text = f"tl.permute({value.text}, ({order}))"
            made = self.assign(f"{value.text}_t", text, dims, value.dtype, value.depth)
            found = replace(made, zero=value.zero)
            self.scope.at(value.depth).know(key, found)
        return found

    def convert(self, value: Value, dtype: str) -> Value:
        """The value in another dtype, once."""
        if value.dtype in (dtype, ""):
            return value
        key = ("convert", value.text, dtype)
        found = self.scope.find(key)
        if found is None:
            wish = f"{value.text}_{short(dtype)}"
            text = f"{value.text}.to({tl_dtype(dtype)})"
            made = self.assign(wish, text, value.dims, dtype, value.depth)
            found = self.scope.at(value.depth).know(key, replace(made, zero=value.zero))
        return found

    def masked(self, value: Value, keys: Iterable[Key], identity: float | int | bool) -> Value:
        """The value with `identity` in the lanes of `keys` that are no elements."""
        found = ((k, self.inside(k)) for k in self.sorted(keys))
        masks = [(k, m) for k, m in found if m is not None]
        wrong = [(k, m) for k, m in masks if not (identity == 0 and k in value.zero)]
        if not wrong:
            return value
        mark = ("masked", value.text, tuple(k for k, _ in wrong), repr(identity))
        found = self.scope.find(mark)
        if found is None:
            dims = self.sorted((*value.dims, *(k for k, _ in wrong)))
            depth = max([value.depth, *(m.depth for _, m in wrong)])
            mask = " & ".join(self.align(m, dims) for _, m in wrong)
            text = f"tl.where({mask}, {self.align(value, dims)}, {literal(identity)})"
            zero = value.zero | {k for k, _ in wrong} if identity == 0 else frozenset[Key]()
            wish = value.text if value.text.isidentifier() else "masked"
            made = self.assign(
                f"{wish}_in", text, dims, value.dtype or self.compute, depth, zero=zero
            )
            found = self.scope.at(depth).know(mark, made)
        return found

    # --- values ---------------------------------------------------------------------------------

    def value(self, node: Node, env: Env) -> Value:
        """The node as a tile, computed where it was not yet."""
        if isinstance(node, Carried):
            found = self.carried.get((node.accumulator, node.phase))
            if found is None:
                raise ValueError(f"{node.accumulator} ({node.phase}) is used where it has no value")
            return found
        key = (node, tuple(env.get(a) for a in node.axes_free))
        found = self.scope.find(key)
        if found is None:
            found = self._compute(node, env)
            self.scope.at(found.depth).know(key, found)
        return found

    def number(self, node: Node, env: Env) -> Value:
        """The node in the dtype that arithmetic has for its sort."""
        value = self.value(node, env)
        return self.convert(value, self.compute) if node.sort == REAL else value

    def tile(self, node: Node, env: Env) -> Value:
        """The same, never a literal: a constant gets a name and a dtype."""
        value = self.number(node, env)
        if isinstance(node, Const) and value.text == literal(node.value):
            dtype = self.compute if node.sort == REAL else node.sort
            return self.assign("const", typed_literal(node, self.compute), (), dtype, 0, "")
        return value

    def _compute(self, node: Node, env: Env) -> Value:
        match node:
            case Const():
                if node.sort in (REAL, "bool", "int32"):
                    return Value(literal(node.value), (), "" if node.sort == REAL else node.sort)
                return self.assign("const", typed_literal(node, self.compute), (), node.sort, 0)
            case Iota():
                return self._iota(node, env)
            case Load():
                return access.load(self, node, env)
            case Pointwise():
                return self._pointwise(node, env)
            case Reduce():
                return reductions.reduce(self, node, env)
            case _:
                raise TypeError(f"no Triton form of {type(node).__name__}")

    def _iota(self, node: Iota, env: Env) -> Value:
        span = self.span(node.axis, env)
        parts = [span.start] if span.start is not None else []
        if span.width > 1:
            parts.append(self.lane(span.key).text)
        text = " + ".join(parts) or "tl.full((), 0, tl.int32)"
        if node.sort != "int32":
            text = f"({text}).to({tl_dtype(node.sort)})"
        dims = (span.key,) if span.width > 1 else ()
        if text.isidentifier():
            return Value(text, dims, node.sort, span.depth)
        return self.assign(node.axis.name, text, dims, node.sort, span.depth, node.axis.name)

    def _pointwise(self, node: Pointwise, env: Env) -> Value:
        if self._held(node):
            return self.tile(node.args[1], env)
        if node.op == "exp" and self.exp2 and self.compute == "float32":
            return exponentials.exponential(self, node, env)
        if self.exp2 and self.compute == "float32":
            found = exponentials.guarded(self, node, env)
            if found is not None:
                return found
        inverse = self._inverse(node, env)
        if inverse is not None:
            return self._pointwise(Pointwise("mul", (node.args[0], inverse)), env)
        values = [self.number(arg, env) for arg in node.args]
        dims = self.sorted(k for v in values for k in v.dims)
        texts = [self.align(v, dims) for v in values]
        alone = all(isinstance(a, Const) for a in node.args)
        fixed = all(isinstance(a, Const) for a in node.args if a.sort == REAL)
        for n, arg in enumerate(node.args):  # constants alone would take Triton's default dtypes
            if isinstance(arg, Const) and (alone or (fixed and arg.sort == REAL)):
                texts[n] = typed_literal(arg, self.compute)
            elif texts[n].startswith("-"):
                texts[n] = f"({texts[n]})"
        logic = {"and": "and", "min": "and", "or": "or", "max": "or", "xor": "xor"}.get(node.op)
        mixed = len({bool(v.dims) for v in values}) > 1
        if node.sort == "bool" and logic is not None and mixed:
            text, dtype = self._logic(logic, values, texts), "bool"
        else:
            text, dtype = operation(node, texts, self.compute, self.helpers)
        depth = max((v.depth for v in values), default=0)
        zero = (
            frozenset.intersection(*(v.zero for v in values))
            if node.op == "mul"
            else frozenset[Key]()
        )
        return self.assign(node.op, text, dims, dtype, depth, zero=zero)

    def _inverse(self, node: Pointwise, env: Env) -> Node | None:
        """1 / y of a division x / y. By a constant: where that is exact, or no less exact than what
        is done to exponents. By what several quotients have in common: where all that is
        written is rounded to fewer bits (a division is some eight instructions, and no exact one).
        """
        if node.op != "div" or node.sort != REAL:
            return None
        whole, divisor = node.args
        if not isinstance(divisor, Const):
            more = set(self.dims(whole.axes_free, env)) - set(self.dims(divisor.axes_free, env))
            less = self.rounded and self.compute == "float32" and more
            return Pointwise("div", (Const(1.0), divisor)) if less else None
        number = float(divisor.value)
        mantissa, exponent = math.frexp(number)
        exact = abs(mantissa) == 0.5 and abs(exponent) < 100
        normal = math.isfinite(number) and 1e-30 < abs(number) < 1e30
        return Const(1.0 / number) if exact or (normal and self.exp2) else None

    def _logic(self, op: str, values: list[Value], texts: list[str]) -> str:
        """and, or, xor of masks of which one is a scalar: a choice, which needs no broadcast."""
        scalar = 1 if values[0].dims else 0
        one, other = texts[scalar], texts[1 - scalar]
        chosen = {"and": (other, "False"), "or": ("True", other), "xor": (f"~{other}", other)}[op]
        return f"tl.where({one}, {chosen[0]}, {chosen[1]})"

    def resolved(self, node: Node) -> Node:
        """What stands for a node here: a selection whose mask holds is its first value."""
        while isinstance(node, Pointwise) and self._held(node):
            node = node.args[1]
        return node

    def _held(self, node: Pointwise) -> bool:
        """Whether the node selects by the mask that holds here."""
        holds = self.holds
        return node.op == "where" and holds is not None and node.args[0] is holds.args[0]


def name_of(dims: Iterable[Key]) -> str:
    """Dimensions for a comment."""
    return f"[{', '.join(axis for _, axis in dims)}]"


def short(dtype: str) -> str:
    """`float32` as `f32`: for names."""
    return (
        dtype.replace("bfloat", "bf").replace("float", "f").replace("uint", "u").replace("int", "i")
    )
