"""The reader of the text that `ir/text.py` writes.

Comments start with `#`; a line's end ends a statement.
"""

from __future__ import annotations

from prism_jax.ir.lexer import Reader, TextError
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
    affine,
)
from prism_jax.ir.ops import MONOIDS
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph

__all__ = ["TextError", "parse_program", "parse_sgraph"]


def parse_program(text: str) -> Program:
    """The program that the text says.

    Raises:
        TextError: with the line that cannot be read.
    """
    return _Parser(text).program()


def parse_sgraph(text: str) -> SGraph:
    """The sGraph that the text says.

    Raises:
        TextError: with the line that cannot be read.
    """
    return _Parser(text).sgraph()


class _Parser(Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes: dict[str, Node] = {}
        self.axes: dict[str, Axis] = {}
        self.tensors: dict[str, Tensor] = {}
        self.accumulators: dict[str, Accumulator] = {}

    # ---- programs and sGraphs ----

    def program(self) -> Program:
        self.take("program")
        name = self.name()
        inputs = self.tensor_list()
        self.take("compute")
        compute = self.dtype()
        self.open()
        self.axis_header()
        stores: list[Store] = []
        while not self.at("}"):
            if self.at("store"):
                stores.append(self.store())
            else:
                self.node_line()
        self.close()
        return Program(name, inputs, tuple(stores), compute)

    def sgraph(self) -> SGraph:
        self.take("sgraph")
        name = self.name()
        inputs = self.tensor_list()
        self.take("->")
        outputs = self.tensor_list(declare=False)
        self.take("compute")
        compute = self.dtype()
        self.open()
        self.axis_header()
        nodes: list[Kernel | LibraryCall] = []
        while not self.at("}"):
            self.nodes.clear()
            self.accumulators.clear()
            nodes.append(self.kernel() if self.at("kernel") else self.library())
        self.close()
        return SGraph(name, inputs, tuple(nodes), outputs, compute)

    def kernel(self) -> Kernel:
        self.take("kernel")
        name = self.name()
        self.open()
        grid: list[GridAxis] = []
        if self.at("grid"):
            self.take("grid")
            while not self.at_end():
                axis = self.axis()
                self.take("/")
                grid.append(GridAxis(axis, self.size()))
            self.end()
        loops: list[Loop] = []
        stores: list[Store] = []
        while not self.at("}"):
            if self.at("loop"):
                loops.append(self.loop())
            elif self.at("store"):
                stores.append(self.store())
            else:
                self.node_line()
        self.close()
        return Kernel(name, tuple(grid), tuple(loops), tuple(stores))

    def loop(self) -> Loop:
        self.take("loop")
        axis = self.axis()
        self.take("/")
        tile = self.size()
        split = self.axis() if self.skip("split") else None
        self.open()
        inner: list[Loop] = []
        accumulators: list[Accumulator] = []
        stores: list[Store] = []
        while not self.at("}"):
            if self.at("loop"):
                inner.append(self.loop())
            elif self.at("acc"):
                accumulators.append(self.accumulator())
            elif self.at("store"):
                stores.append(self.store())
            else:
                self.node_line()
        self.close()
        return Loop(axis, tile, tuple(accumulators), tuple(stores), tuple(inner), split)

    def accumulator(self) -> Accumulator:
        self.take("acc")
        name = self.name()
        axes = self.axis_list("[", "]")
        self.take("=")
        monoid = self.name()
        summand = self.use()
        rescale, action = None, "mul"
        if self.skip("rescale"):
            action = self.name()
            rescale = self.use()
        elif self.skip("action"):
            action = self.name()
        depends: list[str] = []
        if self.skip("live"):
            while not self.at_end() and not self.at("precision") and not self.at("index"):
                depends.append(self.name())
        precision, index_sort = self.precision(), self.index_sort()
        self.end()
        found = Accumulator(
            name, monoid, summand, axes, rescale, action, tuple(depends), precision, index_sort
        )
        self.accumulators[name] = found
        return found

    def library(self) -> LibraryCall:
        self.take("library")
        name, library = self.name(), self.name()
        self.open()
        stores: list[Store] = []
        while not self.at("}"):
            if self.at("store"):
                stores.append(self.store())
            else:
                self.node_line()
        self.close()
        return LibraryCall(name, library, tuple(stores))

    def store(self) -> Store:
        self.take("store")
        tensor = self.tensor()
        self.tensors[tensor.name] = tensor
        index = self.indices()
        self.take("=")
        value = self.use()
        self.end()
        return Store(tensor, index, value)

    # ---- nodes ----

    def node_line(self) -> None:
        token = self.next()
        if token.kind != "node":
            self.fail(token, "expected a node (%n = ...), a statement or }")
        self.take("=")
        node = self.node()
        self.end()
        if token.text in self.nodes:
            self.fail(token, f"{token.text} is defined twice")
        self.nodes[token.text] = node

    def node(self) -> Node:
        token = self.peek()
        if token.kind != "name" or token.text in ("true", "false") or self.peek(1).text == ".":
            return self.use()
        name = self.name()
        if name == "iota":
            axis = self.axis()
            return Iota(axis, self.dtype() if self.skip(":") else "int32")
        if name == "load":
            return self.load()
        if name == "carried":
            accumulator = self.name()
            self.take(".")
            phase = self.name()
            self.take(":")
            sort = self.dtype()
            return Carried(accumulator, phase, sort, self.axis_list("[", "]"))
        if self.at("{"):
            if name not in MONOIDS:
                self.fail(token, f"{name} is not a monoid")
            axes = self.axis_list("{", "}")
            body = self.use()
            return Reduce(name, axes, body, self.precision(), self.index_sort())
        parameter = self.parameter()
        args: list[Node] = []
        while not self.at_end():
            args.append(self.use())
        return Pointwise(name, tuple(args), parameter)

    def load(self) -> Load:
        tensor = self.tensor()
        index = self.indices()
        guards: list[Within] = []
        if self.skip("if"):
            while True:
                low = self.integer()
                self.take("<=")
                within = self.index()
                self.take("<")
                guards.append(Within(within, low, self.integer()))
                if not self.skip(","):
                    break
        fill = None
        if self.skip("else"):
            token = self.peek()
            found = self.use()
            if not isinstance(found, Const):
                self.fail(token, "the fill of a load must be a number")
            fill = found
        return Load(tensor, index, tuple(guards), fill)

    def indices(self) -> tuple[Index, ...]:
        self.take("[")
        found: list[Index] = []
        while not self.at("]"):
            found.append(self.index())
            if not self.skip(","):
                break
        self.take("]")
        return tuple(found)

    def index(self) -> Index:
        terms: list[tuple[Axis | Node, int]] = []
        offset = 0
        sign = -1 if self.skip("-") else 1
        while True:
            token = self.peek()
            if token.kind == "int":
                number = sign * int(self.next().text)
                if self.skip("*"):
                    terms.append((self.term(), number))
                else:
                    offset += number
            else:
                terms.append((self.term(), sign))
            if self.skip("+"):
                sign = 1
            elif self.skip("-"):
                sign = -1
            else:
                return affine(terms, offset)

    def term(self) -> Axis | Node:
        return self.use() if self.peek().kind == "node" else self.axis()

    def use(self) -> Node:
        """A node by its number, a constant, or an accumulator's value."""
        token = self.next()
        if token.kind == "node":
            if token.text not in self.nodes:
                self.fail(token, f"{token.text} is not defined")
            return self.nodes[token.text]
        if token.text in ("true", "false"):
            return Const(token.text == "true", "bool")
        if token.kind == "float":
            return Const(float(token.text), REAL)
        if token.kind == "int" or token.text == "-":
            number = int(token.text) if token.kind == "int" else -int(self.next().text)
            self.take(":")
            return Const(number, self.dtype())
        if token.kind == "name":
            name = token.text.strip("`")
            self.take(".")
            if name not in self.accumulators:
                self.fail(token, f"there is no accumulator {name} before this line")
            return self.accumulators[name].carried(self.name())
        return self.fail(token, "expected a node, a number or an accumulator's value")

    def parameter(self) -> Parameter:
        if not self.skip("("):
            return None
        if self.peek().kind == "name":
            value: Parameter = self.name()
        elif self.at(")"):
            value = ()
        elif self.peek().kind == "float":
            value = float(self.next().text)
        else:
            numbers = [self.integer()]
            is_tuple = False
            while self.skip(","):
                is_tuple = True
                if not self.at(")"):
                    numbers.append(self.integer())
            value = tuple(numbers) if is_tuple else numbers[0]
        self.take(")")
        return value

    def precision(self) -> Precision | None:
        if not self.skip("precision"):
            return None
        return Precision(self.dtype(), self.dtype(), self.dtype(), self.name())

    def index_sort(self) -> str | None:
        return self.dtype() if self.skip("index") else None

    # ---- names ----

    def tensor_list(self, declare: bool = True) -> tuple[Tensor, ...]:
        self.take("(")
        found: list[Tensor] = []
        while not self.at(")"):
            found.append(self.tensor())
            if not self.skip(","):
                break
        self.take(")")
        self.tensors |= {t.name: t for t in found} if declare else {}
        return tuple(found)

    def tensor(self) -> Tensor:
        """A tensor: `name: dtype[shape]`, or the name of a known one."""
        token = self.peek()
        name = self.name()
        if self.skip(":"):
            dtype = self.dtype()
            self.take("[")
            shape: list[Size] = []
            while not self.at("]"):
                shape.append(self.size())
                if not self.skip(","):
                    break
            self.take("]")
            return Tensor(name, tuple(shape), dtype)
        if name not in self.tensors:
            self.fail(token, f"there is no tensor {name} before this line")
        return self.tensors[name]

    def axis_header(self) -> None:
        if self.skip("axes"):
            while not self.at_end():
                axis = self.axis(declare=True)
                self.axes[axis.name] = axis
            self.end()

    def axis_list(self, left: str, right: str) -> tuple[Axis, ...]:
        self.take(left)
        found: list[Axis] = []
        while not self.at(right):
            found.append(self.axis())
            if not self.skip(","):
                break
        self.take(right)
        return tuple(found)

    def axis(self, declare: bool = False) -> Axis:
        token = self.peek()
        name = self.name()
        if self.skip("="):
            return Axis(name, self.size())
        if declare or name not in self.axes:
            self.fail(token, f"axis {name} has no size")
        return self.axes[name]

    def size(self) -> Size:
        return int(self.next().text) if self.peek().kind == "int" else self.name()
