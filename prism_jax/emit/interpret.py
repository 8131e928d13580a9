"""Kernels without a GPU: a `KernelSource` run by Triton's interpreter on numpy arrays.

In: a source, a grid, arrays. Out: its outputs as arrays, or a sentence that says what the kernel
did wrong. It runs in a worker process: interpreting patches `triton.language` for good, after which
nothing compiles in that process, and a stray store must not corrupt the caller's heap. So a test
may interpret and compile in any order.

What is checked, beyond the values:
* every access lies inside one array and is aligned to its elements (the stock interpreter checks
  nothing, and a store out of bounds crashes later, elsewhere);
* inputs are not stored to; every element of every output is stored to, and none is read before;
* no element is stored by two programs, or read by one and stored by another in the same launch
  (`exclusive=False` allows both, for kernels whose last block reduces);
* arrays lie between guard bands; everything unset is poisoned with bits that are NaN as any float.

What is corrected in the stock interpreter (3.6 to 3.9), all measured against ml_dtypes: bf16 and
fp8 arithmetic (it adds bit patterns), their casts (it truncates), their products, and `tl.maximum`
and `tl.minimum` of a NaN (the device returns the other operand). `int()` of a one-element array, an
error since numpy 2.4, is avoided, which is what made triton 3.6 need numpy < 2.4.

What stays different from the device: fp32 `tl.dot` in three TF32 passes is exact fp32 (in one pass
operands are cut to TF32, as the matrix unit cuts them); sums have numpy's order; `libdevice` and
inline assembly do not exist. `tl.associative_scan` with a function of one's own takes a Python call
per element. Keep grid times loop trips below a few hundred.

>>> from prism_jax.emit.binary import KernelSource
>>> text = '''import triton
... import triton.language as tl
...
... @triton.jit
... def double(x_ptr, y_ptr, block: tl.constexpr):
...     i = tl.program_id(0) * block + tl.arange(0, block)
...     tl.store(y_ptr + i, 2.0 * tl.load(x_ptr + i))
... '''
>>> source = KernelSource(
...     name="double", text=text, constexprs=(("block", 2),),
...     signature=(("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("block", "constexpr")),
... )
>>> (y,) = interpret(source, (2,), [np.arange(4, dtype=np.float32)], [((4,), "float32")])
>>> y.tolist()
[0.0, 2.0, 4.0, 6.0]
"""

from __future__ import annotations

import dataclasses
import itertools
import linecache
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prism_jax.emit.binary import KernelSource, pointer_type
from prism_jax.emit.compile import load, worker_environment
from prism_jax.emit.corrections import correct
from prism_jax.emit.workers import Pool, WorkerError

Array = np.ndarray[Any, Any]

#: Bytes of poison before and after each array.
GUARD_BYTES = 4096
_POISON = 0xFF  # NaN as fp64, fp32, fp16, bf16 and both fp8; -1 as an integer
_UNSET = -1
_GIVEN = -2  # the writer of an element that the launch started with


class InterpretError(Exception):
    """The kernel did something wrong, or cannot be interpreted. The message says what and where."""


def interpret(
    source: KernelSource,
    grid: Sequence[int],
    inputs: Sequence[Any],
    out_types: Sequence[tuple[Sequence[int], Any]],
    scalars: Sequence[bool | int | float] = (),
    zeroed: Sequence[int] = (),
    aliases: Mapping[int, int] | None = None,
    *,
    exclusive: bool = True,
    timeout: float = 120.0,
) -> tuple[Array, ...]:
    """The outputs of one launch of `source`; arguments as for `launch.cuda.kernel_call`.

    Args:
      source: the kernel. It may use anything but libdevice and inline assembly.
      grid: one to three numbers of blocks.
      inputs: arrays (numpy, or what `np.asarray` takes), in the order of the kernel's pointers.
      out_types: (shape, dtype) of each output.
      scalars: values of the scalar parameters, in order.
      zeroed: numbers of the outputs that start as zeros; they need not be stored to.
      aliases: input number to output number: the output starts as a copy of that input, in one
        buffer that both parameters point to.
      exclusive: whether an element that two programs touch is an error.
      timeout: seconds.

    Raises:
      InterpretError: a rule above was broken, the kernel raised, or it took too long.
      ValueError: the arrays do not fit the signature.
    """
    arrays = [np.asarray(array) for array in inputs]
    types = [(tuple(map(int, shape)), np.dtype(dtype)) for shape, dtype in out_types]
    given = (*(pointer_type(a.dtype) for a in arrays), *(pointer_type(d) for _, d in types))
    pointers = tuple(kind for kind in source.parameters if kind.startswith("*"))
    if given != pointers or len(scalars) != len(source.parameters) - len(pointers):
        takes = f"kernel {source.name} takes {source.parameters}"
        raise ValueError(f"{takes}, given {given} and {len(scalars)} scalars")
    launch = _Launch(
        source,
        (*map(int, grid), *(1,) * (3 - len(grid))),
        arrays,
        types,
        list(scalars),
        frozenset(zeroed),
        dict(aliases or {}),
        exclusive,
    )
    try:
        return _pool.run(f"{__name__}:interpret_here", launch, timeout=timeout)
    except WorkerError as error:
        message = str(error).removeprefix("InterpretError: ")
        raise InterpretError(f"kernel {source.name}: {message}") from None


_pool = Pool(lambda: {**worker_environment(), "TRITON_INTERPRET": "1"})


@dataclasses.dataclass(frozen=True)
class _Launch:
    source: KernelSource
    grid: tuple[int, ...]
    inputs: list[Array]
    out_types: list[tuple[tuple[int, ...], np.dtype[Any]]]
    scalars: list[bool | int | float]
    zeroed: frozenset[int]
    aliases: dict[int, int]
    exclusive: bool


# The rest runs in workers only.


class _Buffer:
    """An array between guard bands, and which program wrote each of its elements."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name = name
        self.size = math.prod(shape)
        self.item = dtype.itemsize
        self.writable = False
        nbytes = self.size * self.item
        store = np.full(nbytes + 2 * GUARD_BYTES + 128, _POISON, np.uint8)
        first = GUARD_BYTES + -(store.ctypes.data + GUARD_BYTES) % 128
        self.array = store[first : first + nbytes].view(dtype).reshape(shape)
        self.start = store.ctypes.data + first
        self.writer = np.full(self.size, _UNSET, np.int64)
        self._bands = store[:first], store[first + nbytes :]

    def fill(self, value: Any) -> None:
        self.array[...] = value
        self.writer[...] = _GIVEN

    def check(self) -> None:
        if not all((band == _POISON).all() for band in self._bands):
            raise InterpretError(f"wrote outside {self.name}")
        unset = np.flatnonzero(self.writer == _UNSET)
        if unset.size:
            first = [int(i) for i in np.unravel_index(int(unset[0]), self.array.shape or (1,))]
            count = f"{unset.size} of {self.size} elements of {self.name}"
            raise InterpretError(f"{count} are never stored, the first is {first}")


class _Memory:
    """All buffers of one launch; `touch` is called for each access before it happens."""

    def __init__(self, buffers: Sequence[_Buffer], exclusive: bool) -> None:
        self.buffers = sorted(buffers, key=lambda buffer: buffer.start)
        self.starts = np.array([buffer.start for buffer in self.buffers])
        self.exclusive = exclusive
        self.program = 0

    def touch(self, addresses: Any, mask: Any, kind: str) -> None:
        addresses, mask = np.broadcast_arrays(addresses, mask)
        chosen = addresses[mask].astype(np.int64)
        which = np.maximum(np.searchsorted(self.starts, chosen, "right") - 1, 0)
        for number in np.unique(which):
            self._touch_one(self.buffers[number], chosen[which == number], kind)

    def _touch_one(self, buffer: _Buffer, addresses: Array, kind: str) -> None:
        elements, rest = np.divmod(addresses - buffer.start, buffer.item)

        def refuse(where: Array, why: str) -> None:
            if where.any():
                first = int(elements[where][0])
                raise InterpretError(f"{kind}s element {first} of {buffer.name}, {why}")

        refuse((elements < 0) | (elements >= buffer.size), f"which has {buffer.size}")
        refuse(rest != 0, "at an address between two elements")
        writers = buffer.writer[elements]
        if kind == "load":
            refuse(writers == _UNSET, "which is not set yet")
        else:
            refuse(np.full(elements.shape, not buffer.writable), "which is an input")
        if kind != "atomic" and self.exclusive:
            refuse((writers >= 0) & (writers != self.program), "which another program stores too")
        if kind != "load":
            buffer.writer[elements] = _GIVEN if kind == "atomic" else self.program


_memory = _Memory((), exclusive=True)  # of the launch that runs
_corrected = False


def _touch(addresses: Any, mask: Any, kind: str) -> None:
    _memory.touch(addresses, mask, kind)


def interpret_here(launch: _Launch) -> tuple[Array, ...]:
    """One launch, in this process. For workers."""
    global _corrected, _memory
    import triton.language as tl
    from triton.runtime import interpreter

    if not _corrected:
        correct(interpreter, tl, _touch)
        _corrected = True
    names = [name for name, kind in launch.source.signature if kind.startswith("*")]
    read: list[_Buffer] = []
    for name, value in zip(names, launch.inputs, strict=False):
        read.append(buffer := _Buffer(name, value.shape, value.dtype))
        buffer.fill(value)
    shared = {target: read[source] for source, target in launch.aliases.items()}
    written: list[_Buffer] = []
    for number, (shape, dtype) in enumerate(launch.out_types):
        buffer = shared.get(number) or _Buffer(names[len(read) + number], shape, dtype)
        buffer.writable = True
        if number in launch.zeroed:
            buffer.fill(0)
        written.append(buffer)
    unshared = [buffer for number, buffer in enumerate(written) if number not in shared]
    _memory = _Memory((*read, *unshared), launch.exclusive)

    arguments = _arguments(launch, [*read, *written], interpreter, tl)
    function = load(launch.source)
    with np.errstate(all="ignore"):
        _run(function, launch.grid, arguments, interpreter)
    for buffer in _memory.buffers:
        buffer.check()
    return tuple(buffer.array.copy() for buffer in written)


def _arguments(
    launch: _Launch, buffers: Sequence[_Buffer], interpreter: Any, tl: Any
) -> dict[str, Any]:
    # Ready-made tensors: the interpreter would take torch's, and guess their types.
    pointers, scalars = iter(buffers), iter(launch.scalars)
    arguments: dict[str, Any] = dict(launch.source.constexprs)
    for name, kind in launch.source.signature:
        if kind != "constexpr":
            ty = tl.str_to_ty(kind, None)
            if kind.startswith("*"):
                data = np.array([next(pointers).start], np.uint64)
            else:
                data = np.array([next(scalars)], interpreter._get_np_dtype(ty))
            arguments[name] = tl.tensor(interpreter.TensorHandle(data, ty), ty)
    return arguments


def _run(function: Any, grid: tuple[int, ...], arguments: dict[str, Any], interpreter: Any) -> None:
    builder = interpreter.interpreter_builder
    set_index = type(builder).set_grid_idx
    programs = itertools.count()

    def next_program(*index: int) -> None:
        _memory.program = next(programs)
        set_index(builder, *index)

    builder.set_grid_idx = next_program
    try:
        function[grid](**arguments)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        what = str(cause) if isinstance(cause, InterpretError) else repr(cause)
        where = f"program {tuple(builder.grid_idx or ())}"
        line = _line(cause, function.fn.__code__.co_filename)
        raise InterpretError(f"{where} {what}{line}") from error
    finally:
        del builder.set_grid_idx


def _line(error: BaseException, filename: str) -> str:
    trace, number = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            number = trace.tb_lineno
        trace = trace.tb_next
    text = linecache.getline(filename, number).strip()
    return f" (line {number}: {text})" if text else ""
