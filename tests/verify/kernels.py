"""Mechanical variants of right kernels: emitted Triton with one place of its source changed.

The same seven classes as of sGraphs (`mutants`), made from the text that would be compiled and run
in Triton's interpreter. A kernel computes in float32, so it counts as wrong where it is off the
float64 value by more than `OFF` of the largest element; one that does not run (a race, an access
outside of its arrays) is refused by the interpreter and set aside.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from prism_jax.emit import jnp as emit_jnp
from prism_jax.emit.interpret import InterpretError, interpret
from prism_jax.emit.triton import emit_kernel
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.concrete import concrete
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.sgraph import Kernel
from tests.verify import pairs as p
from tests.verify.exhaustive import inputs
from tests.verify.pairs import Pair

OFF = 1e-4
PLAIN = Schedule()
Array = Any


def powers_of_two(pair: Pair) -> Pair:
    """Tiles as kernels have them."""
    return replace(pair, sizes={k: 1 << (n - 1).bit_length() for k, n in pair.sizes.items()})


def kernel_pairs() -> list[Pair]:
    """Pairs whose kernels show every class: products, masks, cascades, shares, windows."""
    made = [
        p.matmul(5, 9, 6),
        p.matmul(4, 4, 4),
        p.lora(),
        p.lora(4, 4, 4, 4),
        p.rmsnorm_linear(4, 4, 4),
        p.layernorm(),
        p.gatedmlp(4, 4, 4),
        p.rmsnorm_linear(),
        p.attention(True),
        p.attention(True, 2, 4, 4, 4),
        p.attention_split(),
        p.qknorm_attention(),
        p.logsumexp(),
        p.split_k(),
        p.inner_loop(),
        p.softmax_two_loops(),
        p.two_kernels(),
        p.masked_products(),
        p.window(),
    ]
    return [powers_of_two(pair) for pair in made]


@dataclass(frozen=True)
class KernelMutant:
    """A changed source of kernel `node` of the pair's sGraph under a schedule."""

    pair: Pair
    kind: str
    change: str
    node: int
    text: str
    schedule: Schedule = PLAIN

    def __str__(self) -> str:
        return f"{self.kind}: kernel {self.pair.name}: {self.change}"


@cache
def _emitted(
    pair_sgraph: Any, sizes: tuple[tuple[str, int], ...], schedule: Schedule
) -> tuple[Any, ...]:
    graph = concrete(pair_sgraph, dict(sizes))
    return tuple(
        emit_kernel(n, graph.compute, schedule)
        if isinstance(n, Kernel)
        else emit_jnp.emit_call(n, graph.compute)
        for n in graph.nodes
    )


def emitted(pair: Pair, schedule: Schedule = PLAIN) -> tuple[Any, ...]:
    """What runs for each node of the sGraph: an emitted kernel or a function."""
    return _emitted(pair.sgraph, tuple(sorted(pair.sizes.items())), schedule)


def run(
    pair: Pair,
    given: dict[str, Array],
    node: int = -1,
    text: str = "",
    schedule: Schedule = PLAIN,
) -> list[Array]:
    """The outputs by Triton's interpreter, with one kernel's source replaced."""
    tensors = dict(given)
    for n, one in enumerate(emitted(pair, schedule)):
        if hasattr(one, "source") and hasattr(one, "grid"):
            source = replace(one.source, text=text) if n == node else one.source
            types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in one.results]
            results = interpret(source, one.grid, [tensors[t.name] for t in one.operands], types)
        else:
            results = one.call(*(tensors[t.name] for t in one.operands))
        tensors |= {t.name: np.asarray(r) for t, r in zip(one.results, results, strict=True)}
    return [tensors[t.name] for t in pair.sgraph.outputs]


def is_wrong(mutant: KernelMutant) -> bool | None:
    """Whether an element is off for some of three inputs; None where the kernel does not run."""
    try:
        for seed in range(3):
            given = {
                t.name: inputs(mutant.pair, seed)[t.name].astype(numpy_dtype(t.dtype))
                for t in mutant.pair.program.inputs
            }
            found = run(mutant.pair, given, mutant.node, mutant.text, mutant.schedule)
            for a, b in zip(evaluate(mutant.pair.program, given), found, strict=True):
                a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
                if not (np.isfinite(a) == np.isfinite(b)).all():
                    return True
                top = np.max(np.abs(a), initial=1e-30, where=np.isfinite(a))
                if (np.abs(a - b)[np.isfinite(a)] > OFF * top).any():
                    return True
    except InterpretError:
        return None
    return False


# ---- changing one place of the text


class Source:
    """The text of one kernel, its function's tree, and which parts of it are addresses."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        starts = [0]
        for line in text.encode().split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)
        self.starts = starts
        functions = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)]
        [self.function] = [f for f in functions if f.name == name]
        self.addresses: set[ast.AST] = set()
        self.loops = [n for n in ast.walk(self.function) if isinstance(n, ast.For)]
        for node in ast.walk(self.function):
            if isinstance(node, ast.Call) and _name(node.func) in ("tl.load", "tl.store"):
                self.addresses |= set(ast.walk(node.args[0]))
            if isinstance(node, ast.Assign) and _name(node.targets[0]).endswith(
                ("_at", "_start", "_lane")
            ):
                self.addresses |= set(ast.walk(node))

    def nodes(self) -> Iterator[ast.AST]:
        return (n for n in ast.walk(self.function) if hasattr(n, "lineno"))

    def of(self, node: Any) -> str:
        return ast.get_source_segment(self.text, node) or ""

    def edit(self, node: Any, new: str) -> str:
        data = self.text.encode()
        low = self.starts[node.lineno - 1] + node.col_offset
        high = self.starts[node.end_lineno - 1] + node.end_col_offset
        return (data[:low] + new.encode() + data[high:]).decode()


def _name(node: Any) -> str:
    return ast.unparse(node)


_BINARY: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.Div: "*"}
_CALLS = {
    "tl.exp2": "tl.abs", "tl.exp": "tl.exp2", "tl.sum": "tl.max", "tl.max": "tl.sum",
    "tl.sqrt": "tl.abs", "tl.rsqrt": "tl.sqrt", "tl.sigmoid": "tl.exp", "tl.log": "tl.abs",
    "tl.log2": "tl.log", "max_nan": "tl.minimum", "tl.maximum": "tl.minimum",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">"}


def _operators(s: Source) -> Iterator[tuple[str, str]]:
    for n in s.nodes():
        if isinstance(n, ast.BinOp) and n not in s.addresses and type(n.op) in _BINARY:
            other = _BINARY[type(n.op)]
            new = f"({s.of(n.left)} {other} {s.of(n.right)})"
            yield f"{s.of(n)} with {other}", s.edit(n, new)
        if isinstance(n, ast.Call) and _name(n.func) in _CALLS:
            other = _CALLS[_name(n.func)]
            yield f"{_name(n.func)} -> {other}", s.edit(n.func, other)


def _axes(s: Source) -> Iterator[tuple[str, str]]:
    for n in s.nodes():
        if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add) and n in s.addresses:
            for a, b, flip in ((n.left, n.right, False), (n.right, n.left, True)):
                if isinstance(a, ast.BinOp) and isinstance(a.op, ast.Mult):
                    if isinstance(b, ast.BinOp) or not isinstance(a.right, ast.Constant):
                        continue
                    parts = [s.of(a.left), f"{s.of(b)} * {s.of(a.right)}"]
                    new = " + ".join(parts[::-1] if flip else parts)
                    yield f"strides of {s.of(n)} swapped", s.edit(n, f"({new})")
        if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Load):
            index = s.of(n.slice)
            other = {":, None": "None, :", "None, :": ":, None"}.get(index)
            if other is not None:
                yield f"{s.of(n)} along the other axis", s.edit(n, f"{s.of(n.value)}[{other}]")
        if isinstance(n, ast.Call) and _name(n.func) in ("tl.sum", "tl.max", "tl.reduce"):
            axis = n.args[1]
            if isinstance(axis, ast.Constant) and axis.value in (0, 1):
                yield f"axis of {s.of(n)}", s.edit(axis, str(1 - axis.value))


def _scales(s: Source) -> Iterator[tuple[str, str]]:
    for n in s.nodes():
        if isinstance(n, ast.Constant) and isinstance(n.value, float):
            for value in (2 * n.value, -n.value):
                yield f"{n.value} -> {value}", s.edit(n, repr(value))
        if isinstance(n, ast.BinOp) and n not in s.addresses:
            if isinstance(n.op, ast.Mult | ast.Div):
                yield f"{s.of(n)} without its factor", s.edit(n, s.of(n.left))
            if isinstance(n.op, ast.Mult):
                yield f"{s.of(n)} doubled", s.edit(n, f"({s.of(n)} * 2.0)")
                yield f"{s.of(n)} without its first factor", s.edit(n, s.of(n.right))


def _masks(s: Source) -> Iterator[tuple[str, str]]:
    for n in s.nodes():
        if not isinstance(n, ast.Compare) or type(n.ops[0]) not in _COMPARE:
            continue
        left, right = s.of(n.left), s.of(n.comparators[0])
        other = _COMPARE[type(n.ops[0])]
        yield f"{s.of(n)} with {other}", s.edit(n, f"({left} {other} {right})")
        sign = {"<=": "<", "<": "<=", ">=": ">", ">": ">="}[other]
        for shift in (-2, -1, 1, 2):
            yield f"{s.of(n)} off by {shift}", s.edit(n, f"({left} {sign} {right} + {shift})")


def _rescalings(s: Source) -> Iterator[tuple[str, str]]:
    for loop in s.loops:
        for statement in ast.walk(loop):
            if not isinstance(statement, ast.Assign):
                continue
            target = _name(statement.targets[0])
            for n in ast.walk(statement.value):
                if not (isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult)):
                    continue
                if _name(n.left) != target:
                    continue
                a, g = s.of(n.left), s.of(n.right)
                for what, new in {
                    "not rescaled": a,
                    "rescaled twice": f"({a} * {g} * {g})",
                    "rescaled by the inverse": f"({a} / {g})",
                    "rescaled by adding": f"({a} + {g})",
                    "rescaled by a root": f"({a} * tl.sqrt({g}))",
                    "rescaled by zero": f"({a} * 0.0)",
                }.items():
                    yield f"{a} {what}", s.edit(n, new)
            value = statement.value
            if target.startswith("scale") and isinstance(value, ast.Call):
                yield f"{target} is always 1", s.edit(value, f"{s.of(value)} * 0 + 1.0")


def _neutrals(s: Source) -> Iterator[tuple[str, str]]:
    for n in s.nodes():
        if not isinstance(n, ast.Call):
            continue
        name = _name(n.func)
        if name == "tl.zeros":
            for value in ("1.0", "-1.0"):
                new = f"tl.full({s.of(n.args[0])}, {value}, {s.of(n.args[1])})"
                yield f"{s.of(n)} starts at {value}", s.edit(n, new)
        if name == "tl.full":
            for value in ("0.0", "100.0"):
                yield f"{s.of(n)} starts at {value}", s.edit(n.args[1], value)
        if name == "tl.load":
            for keyword in n.keywords:
                if keyword.arg == "other":
                    for value in ("1.0", "-2.0"):
                        yield f"{s.of(n)} filled with {value}", s.edit(keyword.value, value)
        if name == "tl.where":
            for value in ("0.0", "1.0", "-1.0"):
                for side in (1, 2):
                    old = s.of(n.args[side])
                    if old != value and (old.startswith("float") or old in ("0.0", "0", "1.0")):
                        yield f"{s.of(n)}: {value} for {old}", s.edit(n.args[side], value)


def _stale(s: Source) -> Iterator[tuple[str, str]]:
    for loop in s.loops:
        if not (isinstance(loop.iter, ast.Call) and isinstance(loop.target, ast.Name)):
            continue
        args = [s.of(a) for a in loop.iter.args]
        if len(args) == 3:
            start, stop, step = args
            late = f"range({start} + {step}, {stop}, {step})"
            yield f"{s.of(loop.iter)} without its first step", s.edit(loop.iter, late)
            short = f"range({start}, {stop} - {step}, {step})"
            yield f"{s.of(loop.iter)} without its last step", s.edit(loop.iter, short)
            twice = f"range({start}, {stop} + {step}, {step})"
            yield f"{s.of(loop.iter)} with a step more", s.edit(loop.iter, twice)
            for n in ast.walk(loop):
                if isinstance(n, ast.Name) and n.id == loop.target.id and n is not loop.target:
                    line = s.text.split("\n")[n.lineno - 1].split("#")[0].strip()
                    for old in ("0", f"({n.id} - {step} * ({n.id} > 0))"):
                        yield f"{n.id} is {old} in {line}", s.edit(n, old)
        for n in ast.walk(loop):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id.endswith("_new"):
                line = s.text.split("\n")[n.lineno - 1].split("#")[0].strip()
                yield f"{n.id} of the last step in {line}", s.edit(n, n.id.removesuffix("_new"))


_MAKERS = {
    "operator swapped": _operators,
    "axis swapped": _axes,
    "scale dropped": _scales,
    "mask off by one": _masks,
    "not rescaled": _rescalings,
    "neutral element wrong": _neutrals,
    "stale tile": _stale,
}


def kernel_mutants(pairs: list[Pair]) -> Iterator[KernelMutant]:
    """Every mutant of every kernel, each text once, by class."""
    seen: set[str] = set()
    for kind, make in _MAKERS.items():
        for pair in pairs:
            for node, one in enumerate(emitted(pair)):
                if not (hasattr(one, "source") and hasattr(one, "grid")):
                    continue
                source = Source(one.source.text, one.source.name)
                seen.add(one.source.text)
                for change, text in make(source):
                    if text not in seen:
                        seen.add(text)
                        yield KernelMutant(pair, kind, change, node, text)
