"""The contract's float64 oracle computed by XLA on jax's default device.

In: a program, samples of its outputs, and `emit`, which makes a program a function that jax can
trace (the emitters are a floor above this room). Out: an `OnDevice`, a function from inputs to what
`sample.oracle` gives. The sampled program is compiled once and run for every draw: which elements
are sampled is an input of it.

What makes it the same function: reals are float64 from where they are read, products in the highest
precision; only opaque casts round, and XLA is told not to optimise them away; integers and booleans
keep their dtypes. Invariants: nothing is recorded in a function that is being traced, and 64-bit
types are on in here only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import numpy as np

from prism_jax.compat import outside_trace
from prism_jax.ir.nodes import FLOATS, Node, Reduce, Store
from prism_jax.ir.program import Program
from prism_jax.ir.rewrite import rebuild
from prism_jax.verify.effort import Work, work
from prism_jax.verify.sample import Sample, sampled

Array: TypeAlias = Any
Emit: TypeAlias = Callable[[Program], Callable[..., Sequence[Any]]]

PRODUCTS_PER_SECOND, ELEMENTS_PER_SECOND = 2.0**39, 2.0**36
"""In float64, about a tenth of what an accelerator with matrix units for it does, and what one
without them does: what estimates go by."""
SHARE = 0.8
"""Of the memory that is free on the device: what is alive together is only estimated."""
GPUS = ("gpu", "cuda", "rocm")
_OPTIONS = {"xla_allow_excess_precision": False}
"""Else XLA may drop a cast to a narrower float and back, which here is a rounding."""


class OnDevice:
    """The oracle of samples of a program. Raises what XLA raises, when it is called.

    Attributes:
      name: what computes it, for people.
      seconds: what one call takes, by an estimate.
    """

    def __init__(
        self, program: Program, samples: Sequence[Sample], emit: Emit, memory: float | None = None
    ) -> None:
        """`memory`: bytes that may be used; by default what is free on the device.

        Raises:
          MemoryError: it does not fit, in however many pieces of the samples' rows.
        """
        device = default_device()
        self.name = f"XLA on {device.device_kind}"
        self.samples, self.emit = tuple(samples), emit
        memory = _free(device) if memory is None else memory
        self.pieces, each = _pieces(program, self.samples, memory)
        self.seconds = len(self.pieces) * each.seconds(PRODUCTS_PER_SECOND, ELEMENTS_PER_SECOND)

    def __call__(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Every output's sample, as (rows, columns)."""
        with outside_trace(), jax.enable_x64(True):
            there = {name: jax.device_put(array) for name, array in inputs.items()}
            parts: list[list[Array]] = []
            for program, given in self.pieces:
                run = _compiled(program, self.emit)
                found = run(*(there.get(t.name, given.get(t.name)) for t in program.inputs))
                parts.append([np.asarray(value) for value in found])
        return [
            np.concatenate([p[n].reshape(-1, s.columns) for p in parts])[: _height(s)]
            for n, s in enumerate(self.samples)
        ]


def on_gpu(program: Program, samples: Sequence[Sample], emit: Emit) -> OnDevice | None:
    """The oracle on jax's default device if that is a GPU and has the memory for it."""
    if default_device().platform not in GPUS:
        return None
    try:
        return OnDevice(program, samples, emit)
    except MemoryError:
        return None


def default_device() -> Any:
    """The device that jax takes where nothing else is said."""
    with outside_trace():
        [device] = jax.device_put(np.zeros((), np.float32)).devices()
    return device


def widened(program: Program) -> Program:
    """The program over float64: no sum has a precision of its own, and outputs are not rounded."""
    memo: dict[Node, Node] = {}

    def wide(node: Node) -> Node:
        return memo[node]

    for node in program.nodes:
        made = rebuild(node, wide)
        if isinstance(made, Reduce) and made.precision is not None:
            made = replace(made, precision=None)
        memo[node] = made
    outputs = tuple(Store(_wide_tensor(s), s.index, memo[s.value]) for s in program.outputs)
    return Program(program.name, program.inputs, outputs, "float64")


def _wide_tensor(store: Store) -> Any:
    tensor = store.tensor
    return replace(tensor, dtype="float64") if tensor.dtype in FLOATS else tensor


@functools.lru_cache(maxsize=4)
def _compiled(program: Program, emit: Emit) -> Callable[..., Sequence[Any]]:
    """Kept, since the plans of one program are checked one after the other."""
    return jax.jit(emit(widened(program)), compiler_options=_OPTIONS)


def _free(device: Any) -> float:
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return float("inf")
    return SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def _pieces(
    program: Program, samples: tuple[Sample, ...], memory: float
) -> tuple[list[tuple[Program, dict[str, Array]]], Work]:
    """One program and as many choices of its samples' rows as it takes to fit, and a piece's
    work.
    """
    most = max(map(_height, samples), default=1)
    count = 1
    while True:
        pieces = [sampled(program, _piece(samples, n, count)) for n in range(count)]
        effort = work(pieces[0][0])
        inputs = sum(math.prod(int(s) for s in t.shape) for t in program.inputs)
        if 8 * (effort.alive + inputs) <= memory:
            return pieces, effort
        if count >= most:
            raise MemoryError(f"{8 * effort.alive:.3g} bytes are more than {memory:.3g}")
        count = min(most, 2 * count)


def _piece(samples: tuple[Sample, ...], number: int, count: int) -> tuple[Sample, ...]:
    """A part of the rows of every output, equally many in each piece: the last is repeated."""
    if count == 1:
        return samples
    found: list[Sample] = []
    for sample in samples:
        rows = _height(sample)
        length = -(-rows // count)
        chosen = np.minimum(np.arange(number * length, (number + 1) * length), rows - 1)
        found.append(sample.restricted(chosen) if sample.shape and rows > 1 else sample)
    return tuple(found)


def _height(sample: Sample) -> int:
    """The number of rows of a sample."""
    return len(sample.row_coordinates())
