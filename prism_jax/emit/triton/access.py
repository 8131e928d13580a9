"""Loads and stores of tiles through pointers.

In: a `Load` or a `Store` and the spans of its axes. Out: source text. All sizes and strides are
numbers in the text. An address is a pointer to the tile's first element, advanced by scalars
(block and loop starts), plus the offsets of the lanes, which no loop changes.

Invariant: nothing outside a tensor is read or written: lanes outside their axis and elements
outside their guard are masked; masks appear only where some lane can be outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prism_jax.emit.scopes import fitted
from prism_jax.emit.triton.describe import describe, describe_index
from prism_jax.emit.triton.operators import literal, tl_dtype
from prism_jax.emit.triton.spans import Key
from prism_jax.ir.nodes import Axis, Iota, Load, Node, Store, Tensor

if TYPE_CHECKING:
    from prism_jax.emit.triton.tiles import Env, Tiles, Value
    from prism_jax.ir.nodes import Index

__all__ = ["load", "store", "varies"]


def load(tiles: Tiles, node: Load, env: Env, order: tuple[Key, ...] | None = None) -> Value:
    """The tile that `node` reads, in the tensor's dtype; its dimensions in `order` if that is
    given.
    """
    guarded = [a for g in node.guard for a in g.index.axes_free]
    address = _Address(tiles, node.tensor, node.index, env, order, guarded)
    masks = address.ragged()
    ragged = frozenset(k for k in address.dims if tiles.inside(k) is not None)
    for guard in node.guard:
        position, depth = address.position(guard.index)
        masks.append((f"({position} >= {guard.low}) & ({position} < {guard.high})", depth))
    fill: float | int | bool = 0
    if node.guard and node.fill is not None:
        fill = node.fill.value
    text, depth = address.text()
    arguments = [text]
    if masks:
        depth = max([depth, *(d for _, d in masks)])
        other = literal(float(fill)) if node.sort == "real" else str(int(fill))
        arguments += [f"mask={address.joined(masks)}", f"other={other}"]
    if order is None and varies(tiles, node, env) and node in tiles.layout.operands:
        arguments.append('cache_modifier=".ca"')  # else it would be merged with the operand's load
        tiles.apart = True
    policy = _eviction(tiles, node)
    arguments += [f'eviction_policy="{policy}"'] if policy is not None else []
    zero = ragged if fill == 0 else frozenset[Key]()
    return tiles.assign(
        node.tensor.name,
        f"tl.load({', '.join(arguments)})",
        address.dims,
        node.tensor.dtype,
        depth,
        describe(node),
        zero,
    )


def varies(tiles: Tiles, node: Node, env: Env) -> bool:
    """Whether a load is another one in each step of a loop that is open."""
    return isinstance(node, Load) and any(tiles.span(a, env).depth for a in node.axes_free)


def _eviction(tiles: Tiles, node: Load) -> str | None:
    """What the cache should do with a load: keep what other blocks read again, give way for what
    only this block reads.
    """
    if not tiles.blocks:
        return None
    own = set(node.axes_free)
    return "evict_first" if tiles.blocks <= own else "evict_last"


def store(tiles: Tiles, item: Store, env: Env) -> None:
    """Writes a tile of an output into the scope that is open."""
    value = tiles.tile(item.value, env)
    address = _Address(tiles, item.tensor, item.index, env, None, ())
    text, _ = address.text()
    arguments = [text]
    shown = tiles.align(value, address.dims)
    if value.dtype not in (item.tensor.dtype, ""):
        shown = f"{shown}.to({tl_dtype(item.tensor.dtype)})"
    arguments.append(shown)
    masks = address.ragged()
    if masks:
        arguments.append(f"mask={address.joined(masks)}")
    comment = f"{item.tensor.name}[{', '.join(map(describe_index, item.index))}]"
    tiles.scope.add(f"# {comment}", *fitted(f"tl.store({', '.join(arguments)})"))


class _Address:
    """Where the elements `tensor[index]` lie."""

    def __init__(
        self,
        tiles: Tiles,
        tensor: Tensor,
        index: tuple[Index, ...],
        env: Env,
        order: tuple[Key, ...] | None,
        guarded: Sequence[Axis],
    ) -> None:
        self.tiles, self.tensor, self.env = tiles, tensor, env
        shape = [int(s) for s in tensor.shape]
        self.wide = math.prod(shape) > 2**31 - 1
        strides = [math.prod(shape[n + 1 :]) for n in range(len(shape))]
        self.constant = sum(i.offset * s for i, s in zip(index, strides, strict=True))
        self.axes: dict[Axis, int] = {}
        self.nodes: dict[Node, int] = {}
        for one, stride in zip(index, strides, strict=True):
            for term, coefficient in one.terms:
                if isinstance(term, Axis):
                    self.axes[term] = self.axes.get(term, 0) + coefficient * stride
                else:
                    self.nodes[term] = self.nodes.get(term, 0) + coefficient * stride
        self.spans = [(tiles.span(a, env), c) for a, c in self.axes.items()]
        for span, coefficient in self.spans:
            if span.start is not None and span.start.isdigit():
                self.constant += int(span.start) * coefficient
        self.values = [(tiles.value(n, env), c) for n, c in self.nodes.items()]
        keys = [s.key for s, _ in self.spans if s.width > 1]
        keys += [k for v, _ in self.values for k in v.dims]
        guards = [s.key for s in (tiles.span(a, env) for a in guarded) if s.width > 1]
        every = tiles.sorted([*keys, *guards])
        self.dims: tuple[Key, ...] = every if order is None else order
        self.narrow = len(set(keys)) < len(every)

    def text(self) -> tuple[str, int]:
        """The pointers, and the depth from which on they are known."""
        tiles = self.tiles
        base = tiles.pointers[self.tensor.name]
        if self.constant:
            base += f" + {self.constant}"
        depth = 0
        for span, coefficient in sorted(self.spans, key=lambda sc: (sc[0].depth, sc[0].axis)):
            if span.start is not None and coefficient and not span.start.isdigit():
                base += f" + {self._times(span.start, coefficient, self.wide)}"
                depth = max(depth, span.depth)
        lanes = self._lanes()
        if lanes:
            base += f" + {lanes}"
        for value, coefficient in self.values:
            wide = self.wide or value.dtype == "int64"
            shown = tiles.align(value, self.dims)
            base += f" + {self._times(shown, coefficient, wide and value.dtype != 'int64')}"
            depth = max(depth, value.depth)
        if self.narrow:  # a guard has lanes that the index does not have
            base = f"tl.broadcast_to({base}, {tiles.shape(self.dims)})"
        return base, depth

    def _lanes(self) -> str | None:
        """The offsets of the lanes, computed before all loops."""
        tiles = self.tiles
        parts: list[str] = []
        for key in self.dims:
            for span, coefficient in self.spans:
                if span.key == key and coefficient:
                    lane = tiles.align(tiles.lane(key), self.dims)
                    far = self.wide and abs(coefficient) * span.width > 2**31 - 1
                    parts.append(self._times(lane, coefficient, far))
        if len(parts) < 2:
            return parts[0] if parts else None
        text = " + ".join(parts)
        known = tiles.scope.find(("lanes", text))
        if known is None:
            wish = f"{self.tensor.name}_at"
            known = tiles.assign(wish, text, self.dims, "int32", 0)
            tiles.scope.at(0).know(("lanes", text), known)
        return known.text

    def _times(self, text: str, coefficient: int, wide: bool) -> str:
        text = f"{text}.to(tl.int64)" if wide else text
        return text if coefficient == 1 else f"{text} * {coefficient}"

    def ragged(self) -> list[tuple[str, int]]:
        """Masks of the dimensions that have lanes outside their axis."""
        tiles = self.tiles
        found = [tiles.inside(k) for k in self.dims]
        return [(tiles.align(m, self.dims), m.depth) for m in found if m is not None]

    def joined(self, masks: list[tuple[str, int]]) -> str:
        """All masks at once; a name is given to what every step of a loop would compute again."""
        text = " & ".join(t for t, _ in masks)
        if len(masks) == 1:
            return text
        depth = max(d for _, d in masks)
        known = self.tiles.scope.find(("mask", text))
        if known is None:
            known = self.tiles.assign(f"{self.tensor.name}_mask", text, self.dims, "bool", depth)
            self.tiles.scope.at(depth).know(("mask", text), known)
        return known.text

    def position(self, index: Index) -> tuple[str, int]:
        """An affine index as an integer tile aligned to this address."""
        tiles = self.tiles
        parts: list[str] = []
        depth = 0
        for term, coefficient in index.terms:
            node = Iota(term) if isinstance(term, Axis) else term
            value = tiles.value(node, self.env)
            parts.append(self._times(tiles.align(value, self.dims), coefficient, False))
            depth = max(depth, value.depth)
        if index.offset or not parts:
            parts.append(str(index.offset))
        return f"({' + '.join(parts)})" if len(parts) > 1 else parts[0], depth
