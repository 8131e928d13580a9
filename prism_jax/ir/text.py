"""Programs and sGraphs as text that parses back to the identical nodes.

One line per node, operands first. Numbers and accumulators are written where they are used. An axis
is declared once with its size, a tensor where it first appears.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Reduce, Store, Tensor, at
>>> i, k = Axis("i", 4), Axis("k", 8)
>>> x, y = Tensor("x", (4, 8), "float16"), Tensor("y", (4,), "float16")
>>> half = Pointwise("mul", (Load(x, (at(i), at(k))), Const(0.5)))
>>> program = Program("halves", (x,), (Store(y, (at(i),), Reduce("sum", (k,), half)),))
>>> print(print_program(program))
program halves(x: f16[4,8]) compute f32 {
  axes i=4 k=8
  %0 = load x[i, k]
  %1 = mul %0 0.5
  %2 = sum{k} %1
  store y: f16[4][i] = %2
}
>>> parse_program(print_program(program)).outputs[0].value is program.outputs[0].value
True
"""

from __future__ import annotations

from collections.abc import Iterable

from prism_jax.ir.lexer import TextError, short, word
from prism_jax.ir.nodes import (
    REAL,
    Axis,
    Carried,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Parameter,
    Pointwise,
    Precision,
    Reduce,
    Size,
    Store,
    Tensor,
    Within,
)
from prism_jax.ir.parse import parse_program, parse_sgraph
from prism_jax.ir.program import Program, walk
from prism_jax.ir.sgraph import Accumulator, Kernel, LibraryCall, Loop, SGraph

__all__ = ["Printer", "TextError", "parse_program", "parse_sgraph", "print_program", "print_sgraph"]


def print_program(program: Program, annotate: bool = False) -> str:
    """The text of a program. `annotate` adds every node's free axes as a comment."""
    printer = Printer(annotate)
    printer.program(program)
    return printer.text


def print_sgraph(sgraph: SGraph, annotate: bool = False) -> str:
    """The text of an sGraph. `annotate` adds every node's free axes as a comment."""
    printer = Printer(annotate)
    printer.sgraph(sgraph)
    return printer.text


class Printer:
    """Writes the text and remembers on which line each node and each statement stands."""

    def __init__(self, annotate: bool = False) -> None:
        self.annotate = annotate
        self.lines: list[str] = []
        self._lines_of: dict[object, list[int]] = {}
        self._depth = 0
        self._numbers: dict[Node, int] = {}
        self._axes: dict[str, Axis] = {}
        self._tensors: dict[str, Tensor] = {}
        self._accumulators: dict[str, Accumulator] = {}

    @property
    def text(self) -> str:
        """The whole text."""
        return "\n".join(self.lines)

    def where(self, what: object) -> list[int]:
        """The lines, from 0, that a node or a statement (a store, a loop, ...) was written on."""
        return self._lines_of.get(_identity(what), [])

    # ---- programs and sGraphs ----

    def program(self, program: Program) -> None:
        """Writes a program."""
        inputs = ", ".join(self._declare(t) for t in program.inputs)
        self._open(f"program {word(program.name)}({inputs}) compute {short(program.compute)}")
        self._declare_axes(program.outputs, [])
        self._nodes(store.value for store in program.outputs)
        for store in program.outputs:
            self._store(store)
        self._close()

    def sgraph(self, sgraph: SGraph) -> None:
        """Writes an sGraph."""
        inputs = ", ".join(self._declare(t) for t in sgraph.inputs)
        outputs = ", ".join(self._full(t) for t in sgraph.outputs)
        compute = short(sgraph.compute)
        self._open(f"sgraph {word(sgraph.name)}({inputs}) -> ({outputs}) compute {compute}")
        stores: list[Store] = []
        axes: list[Axis] = []
        roots: list[Node] = []
        for node in sgraph.nodes:
            if isinstance(node, Kernel):
                stores += node.all_stores
                roots += node.roots
                axes += [g.axis for g in node.grid] + [loop.axis for loop in node.all_loops]
                axes += [loop.split for loop in node.all_loops if loop.split is not None]
                axes += [x for loop in node.all_loops for a in loop.accumulators for x in a.axes]
            else:
                stores += node.stores
        self._declare_axes(stores, axes, roots)
        for node in sgraph.nodes:
            self._numbers.clear()
            self._accumulators.clear()
            if isinstance(node, Kernel):
                self._kernel(node)
            else:
                self._library(node)
        self._close()

    def _kernel(self, kernel: Kernel) -> None:
        self._open(f"kernel {word(kernel.name)}", kernel)
        if kernel.grid:
            self._line(
                "grid " + " ".join(f"{self._axis(g.axis)}/{_size(g.tile)}" for g in kernel.grid)
            )
        for loop in kernel.loops:
            self._loop(loop)
        for store in kernel.stores:
            self._nodes([store.value])
            self._store(store)
        self._close()

    def _loop(self, loop: Loop) -> None:
        split = f" split {self._axis(loop.split)}" if loop.split is not None else ""
        self._open(f"loop {self._axis(loop.axis)}/{_size(loop.tile)}{split}", loop)
        for inner in loop.inner:
            self._loop(inner)
        for accumulator in loop.accumulators:
            self._nodes(t for t in (accumulator.summand, accumulator.rescale) if t is not None)
            self._line(self._accumulator(accumulator), accumulator)
            self._accumulators[accumulator.name] = accumulator
        for store in loop.stores:
            self._nodes([store.value])
            self._store(store)
        self._close()

    def _accumulator(self, acc: Accumulator) -> str:
        text = f"acc {word(acc.name)}[{', '.join(map(self._axis, acc.axes))}]"
        text += f" = {acc.monoid} {self._use(acc.summand)}"
        if acc.rescale is not None:
            text += f" rescale {acc.action} {self._use(acc.rescale)}"
        elif acc.action != "mul":
            text += f" action {acc.action}"
        if acc.depends:
            text += " live " + " ".join(map(word, acc.depends))
        return text + _precision(acc.precision) + _index_sort(acc.index_sort)

    def _library(self, call: LibraryCall) -> None:
        self._open(f"library {word(call.name)} {word(call.library)}", call)
        self._nodes(store.value for store in call.stores)
        for store in call.stores:
            self._store(store)
        self._close()

    def _store(self, store: Store) -> None:
        index = ", ".join(map(self._index, store.index))
        self._nodes([node for i in store.index for node in i.nodes])
        self._line(
            f"store {self._declare(store.tensor)}[{index}] = {self._use(store.value)}", store
        )

    # ---- nodes ----

    def _nodes(self, roots: Iterable[Node]) -> None:
        nodes = list(walk(roots))
        as_index = {n for load in nodes if isinstance(load, Load) for n in load.index_nodes}
        for node in nodes:
            if node in self._numbers or (self._atom(node) is not None and node not in as_index):
                continue
            text = self._atom(node) or self._node(node)
            self._numbers[node] = len(self._numbers)
            note = f"  # [{', '.join(a.name for a in node.axes_free)}]" if self.annotate else ""
            self._line(f"%{self._numbers[node]} = {text}{note}", node)

    def _node(self, node: Node) -> str:
        match node:
            case Iota(axis=axis, sort_=sort):
                return f"iota {self._axis(axis)}" + (f": {short(sort)}" if sort != "int32" else "")
            case Load():
                return self._load(node)
            case Pointwise(op=op, args=args, parameter=parameter):
                return " ".join([op + _parameter(parameter), *map(self._use, args)])
            case Reduce(monoid=monoid, axes=axes, body=body):
                text = f"{monoid}{{{', '.join(map(self._axis, axes))}}} {self._use(body)}"
                return text + _precision(node.precision) + _index_sort(node.index_sort)
            case Carried(accumulator=name, phase=phase, sort_=sort, axes=axes):
                axes_text = ", ".join(map(self._axis, axes))
                return f"carried {word(name)}.{word(phase)}: {short(sort)}[{axes_text}]"
            case _:
                raise AssertionError(f"{type(node).__name__} has no text")

    def _load(self, node: Load) -> str:
        known = self._tensors.get(node.tensor.name) == node.tensor
        tensor = word(node.tensor.name) if known else self._full(node.tensor)
        text = f"load {tensor}[{', '.join(map(self._index, node.index))}]"
        if node.guard:
            text += " if " + ", ".join(map(self._within, node.guard))
        return text if node.fill is None else f"{text} else {self._use(node.fill)}"

    def _within(self, guard: Within) -> str:
        return f"{guard.low} <= {self._index(guard.index)} < {guard.high}"

    def _index(self, index: Index) -> str:
        parts: list[str] = []
        for term, coefficient in index.terms:
            name = (
                self._axis(term) if isinstance(term, Axis) else f"%{self._numbers.get(term, '?')}"
            )
            factor = "" if abs(coefficient) == 1 else f"{abs(coefficient)}*"
            sign = "-" if coefficient < 0 else "+"
            parts.append(f"{sign} {factor}{name}" if parts else sign.strip("+") + factor + name)
        if index.offset or not parts:
            sign = "-" if index.offset < 0 else "+"
            parts.append(f"{sign} {abs(index.offset)}" if parts else str(index.offset))
        return " ".join(parts)

    def _use(self, node: Node) -> str:
        """A node where it is used: its text if that is one word, else its number."""
        return self._atom(node) or f"%{self._numbers.get(node, '?')}"

    def _atom(self, node: Node) -> str | None:
        if isinstance(node, Const):
            if node.sort_ == REAL:
                return repr(node.value)
            return (
                str(node.value).lower()
                if node.sort_ == "bool"
                else f"{node.value}:{short(node.sort_)}"
            )
        if isinstance(node, Carried):
            accumulator = self._accumulators.get(node.accumulator)
            if accumulator is not None and _stands_for(node, accumulator):
                return f"{word(node.accumulator)}.{word(node.phase)}"
        return None

    # ---- names ----

    def _declare(self, tensor: Tensor) -> str:
        self._tensors[tensor.name] = tensor
        return self._full(tensor)

    def _full(self, tensor: Tensor) -> str:
        return f"{word(tensor.name)}: {short(tensor.dtype)}[{','.join(map(_size, tensor.shape))}]"

    def _declare_axes(
        self, stores: Iterable[Store], more: Iterable[Axis], roots: Iterable[Node] = ()
    ) -> None:
        stores = tuple(stores)
        found = {*more, *(a for s in stores for i in s.index for a in i.axes_free)}
        for node in walk([*roots, *(s.value for s in stores)]):
            found |= set(node.axes_free)
            found |= set(node.axes) if isinstance(node, Reduce) else set()
        for axis in sorted(found, key=lambda a: (a.name, str(a.size))):
            self._axes.setdefault(axis.name, axis)
        if self._axes:
            self._line(
                "axes " + " ".join(f"{word(a.name)}={_size(a.size)}" for a in self._axes.values())
            )

    def _axis(self, axis: Axis) -> str:
        """An axis by its name; with its size where the name alone would mean another axis."""
        known = self._axes.get(axis.name) == axis
        return word(axis.name) if known else f"{word(axis.name)}={_size(axis.size)}"

    # ---- lines ----

    def _line(self, text: str, what: object = None) -> None:
        self.lines.append("  " * self._depth + text)
        if what is not None:
            self._lines_of.setdefault(_identity(what), []).append(len(self.lines) - 1)

    def _open(self, text: str, what: object = None) -> None:
        self._line(text + " {", what)
        self._depth += 1

    def _close(self) -> None:
        self._depth -= 1
        self._line("}")


def _stands_for(node: Carried, accumulator: Accumulator) -> bool:
    try:
        return accumulator.carried(node.phase) is node
    except (KeyError, IndexError):  # the summand has no sort; faulty graphs are printed too
        return False


def _identity(what: object) -> object:
    return what if isinstance(what, Node) else id(what)


def _size(size: Size) -> str:
    return word(size) if isinstance(size, str) else str(size)


def _parameter(parameter: Parameter) -> str:
    if parameter is None:
        return ""
    if isinstance(parameter, tuple):
        return "(" + ", ".join(map(str, parameter)) + ("," if len(parameter) == 1 else "") + ")"
    if isinstance(parameter, str):
        return f"({word(parameter)})"
    return f"({parameter!r})"


def _precision(precision: Precision | None) -> str:
    if precision is None:
        return ""
    dtypes = (precision.operand, precision.accumulate, precision.result)
    return f" precision {' '.join(map(short, dtypes))} {word(precision.algorithm)}"


def _index_sort(sort: str | None) -> str:
    return "" if sort is None else f" index {short(sort)}"
