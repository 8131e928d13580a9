"""Time per call inside a chain of calls, without what the host does for each of their arrays.

In: a function of arrays and its arguments. Out: a `Chain`, whose `run`s of two lengths are timed;
the time of one call is the difference of the two over the difference of the lengths.

A chain with operand sets of its own mostly measures the host: each argument of a program costs 1 to
1.5 us and each result 5 us (measured), which is as much as a short kernel. So here a program has
few arguments and one result. What has to differ from call to call (XLA merges equal calls, even
across an `optimization_barrier`) comes from one stacked array, which a kernel that XLA cannot look
into cuts into pieces; at the end another one reads an element of every result, so that none is
dropped. Both programs cut the same stacks: whatever that costs is in both, as is the dispatch.

Which arguments have pieces of their own: so many of the smallest that no computation of a call is
one of another call (`own`). The others are shared, and stay in the L2 cache if they fit.

Invariant: the chain's order is that of the calls, one barrier between each two, so that XLA fuses
no neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax import compat
from prism_jax.emit.binary import TRITON_TYPES, KernelSource, pointer_type

__all__ = [
    "Chain", "NoChainError", "Program", "gain", "gather_source", "lengths", "own", "per_call",
    "split_source", "warmed",
]  # fmt: skip

BLOCK = 1024
#: Pointers of a kernel: CUDA passes 4 kB of parameters.
MOST_POINTERS = 400
#: Elements of a stack: positions in it are 32-bit integers.
MOST_ELEMENTS = 2**31 - 1
#: Computing so few bytes from as few is not worth pieces of its own.
TRIFLE_BYTES = 1024
#: Only say where elements lie: part of whatever reads them.
LAYOUT = ("broadcast_in_dim", "copy", "expand_dims", "reshape", "squeeze", "transpose")

Kernel = Callable[..., Sequence[Any]]


class NoChainError(Exception):
    """No chain can be made of a function; the message says why."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function with its arguments."""

    function: Any
    args: tuple[Any, ...]

    def compile(self) -> None:
        """Compiles it without running it; a call then finds it compiled."""
        self.function.lower(*self.args).compile()

    def __call__(self) -> Any:
        """Runs it; not waited for."""
        return self.function(*self.args)


def compile_all(programs: Sequence[Program]) -> None:
    """Compiles all at once: XLA uses few processors for one. Raises what compiling one raises."""
    for compiled in [compat.begin(program.compile) for program in programs]:
        compiled.result()


def warmed(programs: tuple[Program, Program]) -> tuple[Program, Program]:
    """The programs, each run twice: compiled, and captured if XLA does."""
    for program in (*programs, *programs):
        jax.block_until_ready(program())
    return programs


@dataclasses.dataclass(frozen=True)
class Chain:
    """What chains of one set of arguments share: every function timed with it meets the same.

    Attributes:
      treedef: of the arguments.
      shared: leaves that all calls read, None where a call has its own.
      stacks: for each leaf of the latter kind, its position and `long` copies of it as one array.
      short, long: calls of the two programs.
    """

    treedef: Any
    shared: tuple[Any, ...]
    stacks: tuple[tuple[int, jax.Array], ...]
    short: int
    long: int

    @staticmethod
    def of(
        reference: Callable[..., Any], args: Sequence[Any], lengths: tuple[int, int], memory: int
    ) -> Chain:
        """Chains for functions that compute what `reference` does of `args`.

        Args:
          reference: decides which arguments have pieces of their own.
          args: arrays, or pytrees of arrays.
          lengths: calls of the short and of the long program, fewer where memory is short.
          memory: bytes that stacks, pieces and results may take.

        Raises:
          NoChainError: there is no memory for two calls, too many results, or no argument to cut.
        """
        leaves, treedef = jax.tree.flatten(tuple(args))
        positions = own(reference, args)
        outputs = [o for o in jax.tree.leaves(jax.eval_shape(reference, *args)) if o.size]
        if not all(_known(o.dtype) for o in outputs):
            raise NoChainError("a result's type is none that a kernel can read")
        pieces = sum(leaves[p].nbytes for p in positions)
        results = sum(o.size * o.dtype.itemsize for o in outputs)
        most = min(
            memory // max(1, 2 * pieces + results),
            MOST_POINTERS // max(1, len(outputs)),
            *(MOST_ELEMENTS // leaves[p].size for p in positions),
            lengths[1],
        )
        if most < 2:
            raise NoChainError("two calls take more memory, or have more results, than they may")
        short = max(1, min(lengths[0], most // 2))
        stacks = tuple((p, jnp.stack([leaves[p]] * most)) for p in positions)
        cut = {p for p, _ in stacks}
        shared = tuple(None if p in cut else leaf for p, leaf in enumerate(leaves))
        return Chain(treedef, shared, stacks, short, most)

    def run(self, function: Callable[..., Any], count: int) -> Program:
        """`count` calls as one program: an element of each result, as float32."""
        positions = [p for p, _ in self.stacks]

        def chained(stacks: Sequence[jax.Array], shared: Sequence[Any]) -> jax.Array:
            pieces = [cut(stack, self.long) for stack in stacks]
            outputs: list[Any] = []
            for number in range(count):
                leaves = list(shared)
                for position, some in zip(positions, pieces, strict=True):
                    leaves[position] = some[number]
                if outputs:
                    outputs[-1], leaves = jax.lax.optimization_barrier((outputs[-1], leaves))
                outputs.append(function(*jax.tree.unflatten(self.treedef, leaves)))
            return gathered([o for o in jax.tree.leaves(outputs) if o.size])

        return Program(jax.jit(chained), ([stack for _, stack in self.stacks], self.shared))

    def programs(self, function: Callable[..., Any]) -> tuple[Program, Program]:
        """The short and the long program."""
        return self.run(function, self.short), self.run(function, self.long)

    def runs(self, function: Callable[..., Any]) -> tuple[Program, Program]:
        """The short and the long program, each run twice: compiled, and captured if XLA does."""
        programs = self.programs(function)
        compile_all(programs)
        return warmed(programs)

    def time_us(self, function: Callable[..., Any], repetitions: int) -> float:
        """Microseconds of one call, from medians; below zero where the clock cannot tell."""
        runs = self.runs(function)
        samples = [[_seconds(run) for run in runs] for _ in range(repetitions)]
        short, long = (statistics.median(column) for column in zip(*samples, strict=True))
        return per_call(short, long, self.long - self.short) * 1e6


def lengths(seconds: float) -> tuple[int, int]:
    """Calls of the short and the long chain for calls that take so long: the longer the difference,
    the less of the clock's noise falls on each call; the short one is still long enough that XLA
    captures it.
    """
    if seconds < 1e-4:
        return 8, 40
    return (4, 12) if seconds < 1e-3 else (1, 3)


def per_call(short: float, long: float, calls: int) -> float:
    """Time of one call, from the times of two chains that differ by so many calls."""
    return (long - short) / calls


def gain(
    reference: tuple[Callable[[], Any], Callable[[], Any]],
    candidate: tuple[Callable[[], Any], Callable[[], Any]],
    *,
    seconds: float,
    pairs: tuple[int, int],
) -> tuple[float, float, float]:
    """How many times faster calls of `candidate` are, and the 95 % interval, from short and long
    chains of both, interleaved in alternating order. Infinite where the clock cannot tell that
    candidate's calls take any time.
    """
    runs = (*reference, *candidate)
    rows: list[list[float]] = []
    start = time.perf_counter()
    least, most = pairs
    while len(rows) < most and (len(rows) < least or time.perf_counter() - start < seconds):
        row = [0.0] * 4
        for place in (0, 1, 2, 3) if len(rows) % 2 else (3, 2, 1, 0):
            row[place] = _seconds(runs[place])
        rows.append(row)
    return gain_of(np.asarray(rows))


def gain_of(rows: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """The same of samples: rows of (short, long) of the reference, (short, long) of the candidate.

    >>> rows = np.array([[1.0, 5.0, 1.0, 3.0], [1.1, 5.1, 1.0, 3.1], [1.0, 5.0, 1.0, 2.9]])
    >>> [round(x, 1) for x in gain_of(rows)]
    [2.0, 1.9, 2.1]
    """
    draws = np.random.default_rng(0).integers(0, len(rows), (1000, len(rows)))
    some = np.median(rows[draws], axis=1)
    every = np.concatenate([np.median(rows, axis=0)[None], some])
    first, second = every[:, 1] - every[:, 0], every[:, 3] - every[:, 2]
    ratios = np.where(second > 0, first / np.where(second > 0, second, 1.0), np.inf)
    low, high = np.percentile(ratios[1:], [2.5, 97.5], method="nearest")
    return float(ratios[0]), float(low), float(high)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


# --- which arguments -----------------------------------------------------------------------------


def own(function: Callable[..., Any], args: Sequence[Any]) -> tuple[int, ...]:
    """Positions of the leaves of `args` that calls of a chain may not share: whatever is computed
    depends on one of them. Few bytes are preferred.

    Raises:
      NoChainError: nothing can be cut.

    >>> x, w = np.ones((2, 300), np.float32), np.ones((300, 900), np.float32)
    >>> own(lambda x, w: jnp.tanh(x) @ w, (x, w))
    (0,)
    >>> own(lambda x, w: x @ jnp.tanh(w), (x, w))
    (1,)
    """
    leaves, treedef = jax.tree.flatten(tuple(args))

    def flat(*values: Any) -> list[Any]:
        return jax.tree.leaves(function(*jax.tree.unflatten(treedef, values)))

    closed = jax.make_jaxpr(flat)(*leaves)
    needs: set[frozenset[int]] = set()
    _depend(closed, [frozenset([n]) for n in range(len(leaves))], needs)
    able = {
        n: leaf.nbytes
        for n, leaf in enumerate(leaves)
        if hasattr(leaf, "nbytes") and leaf.size and _known(leaf.dtype)
    }
    left = {frozenset(need & able.keys()) for need in needs if need}
    if not able or not all(left):
        raise NoChainError("something is computed from arguments that no kernel can cut")
    found: set[int] = set()
    while left:
        hits = {n: sum(n in need for need in left) for n in able}
        best = max(hits, key=lambda n: (hits[n], -able[n], -n))
        found.add(best)
        left = {need for need in left if best not in need}
    for n in sorted(found, key=lambda n: -able[n]):  # what later choices made superfluous
        rest = found - {n}
        if rest and all(need & rest for need in needs if need):
            found = rest
    return tuple(sorted(found or {min(able, key=lambda n: able[n])}))


def _depend(
    closed: Any, given: Sequence[frozenset[int]], needs: set[frozenset[int]]
) -> list[frozenset[int]]:
    """On which leaves each output depends; adds to `needs` those of everything computed."""
    known: dict[Any, frozenset[int]] = dict(zip(closed.jaxpr.invars, given, strict=True))

    def of(atom: Any) -> frozenset[int]:
        return frozenset() if isinstance(atom, compat.Literal) else known.get(atom, frozenset())

    for eqn in closed.jaxpr.eqns:
        inputs = [of(atom) for atom in eqn.invars]
        everything = frozenset[int]().union(*inputs)
        inner = list(compat.inner_jaxprs(eqn).values())
        if len(inner) == 1 and _is_call(eqn, inner[0]):
            results = _depend(inner[0], inputs, needs)
        else:
            results = [everything] * len(eqn.outvars)
            if eqn.primitive.name not in LAYOUT and _bytes(eqn) > TRIFLE_BYTES:
                needs.add(everything)
        known.update(zip(eqn.outvars, results, strict=True))
    return [of(atom) for atom in closed.jaxpr.outvars]


def _bytes(eqn: Any) -> int:
    """Bytes of the largest array that an equation reads or writes."""
    avals = [atom.aval for atom in (*eqn.invars, *eqn.outvars)]
    sizes = [a.size * a.dtype.itemsize for a in avals if hasattr(a, "dtype") and hasattr(a, "size")]
    return max(sizes, default=0)


def _is_call(eqn: Any, inner: Any) -> bool:
    """Whether the equation just runs the program inside it, once."""
    name = eqn.primitive.name
    return name in ("jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call") and (
        len(inner.jaxpr.invars) == len(eqn.invars)
    )


def _known(dtype: Any) -> bool:
    return getattr(dtype, "name", str(dtype)) in TRITON_TYPES


# --- the two kernels -----------------------------------------------------------------------------


def cut(stack: jax.Array, count: int) -> list[jax.Array]:
    """The rows of `stack`, each an array of its own. XLA cannot look into it."""
    size = stack.size // count
    source = split_source(pointer_type(np.dtype(stack.dtype)), count, size)
    row = jax.ShapeDtypeStruct(stack.shape[1:], stack.dtype)
    kernel = _kernel(source, (-(-size // BLOCK),), [row] * count)
    if kernel is None:
        return list(jax.lax.optimization_barrier([stack[n] for n in range(count)]))
    return list(kernel(stack))


def gathered(arrays: Sequence[jax.Array]) -> jax.Array:
    """The first element of each array, as float32. XLA cannot look into it."""
    source = gather_source([pointer_type(np.dtype(a.dtype)) for a in arrays])
    kernel = _kernel(source, (1,), [jax.ShapeDtypeStruct((len(arrays),), np.float32)])
    if kernel is None:
        arrays = jax.lax.optimization_barrier(list(arrays))
        return jnp.stack([a.reshape(-1)[0].astype(np.float32) for a in arrays])
    (found,) = kernel(*arrays)
    return found


def _kernel(source: KernelSource, grid: tuple[int, ...], results: Sequence[Any]) -> Kernel | None:
    """The kernel as a call; None on a host, which has plain JAX for it."""
    if jax.default_backend() != "gpu":
        return None
    from prism_jax.launch.cuda import kernel_call

    return kernel_call(_compiled(source, _capability()), grid, results)


@functools.lru_cache(64)
def _compiled(source: KernelSource, capability: int) -> Any:
    from prism_jax.emit.compile import compile_kernel

    return compile_kernel(source, capability)


def _capability() -> int:
    from prism_jax import device

    return device.current().compute_capability


def split_source(pointer: str, count: int, size: int) -> KernelSource:
    """A kernel that copies each of `count` rows of `size` elements to an array of its own."""
    names = [f"piece_{n}_ptr" for n in range(count)]
    body = [
        f"i = tl.program_id(0) * {BLOCK} + tl.arange(0, {BLOCK})",
        f"inside = i < {size}",
        *(
            f"tl.store({name} + i, tl.load(stack_ptr + {n * size} + i, mask=inside), mask=inside)"
            for n, name in enumerate(names)
        ),
    ]
    signature = [(name, pointer) for name in ("stack_ptr", *names)]
    return _source("split_pieces", signature, body)


def gather_source(pointers: Sequence[str]) -> KernelSource:
    """A kernel that reads the first element of each array and writes them all, as float32."""
    names = [f"result_{n}_ptr" for n in range(len(pointers))]
    body = [
        f"tl.store(out_ptr + {n}, tl.load({name}).to(tl.float32))" for n, name in enumerate(names)
    ]
    signature = [*zip(names, pointers, strict=True), ("out_ptr", "*fp32")]
    return _source("gather_results", signature, body)


def _source(name: str, signature: Sequence[tuple[str, str]], body: Sequence[str]) -> KernelSource:
    head = f"def {name}({', '.join(parameter for parameter, _ in signature)}):"
    lines = ["import triton", "import triton.language as tl", "", "", "@triton.jit", head]
    text = "\n".join([*lines, *(f"    {line}" for line in body), ""])
    return KernelSource(name=name, text=text, signature=tuple(signature), num_stages=1)
