"""Random shapes and random compositions: lifting keeps the value."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.extract.oracle import agree, draw

Draw = Any
SIZES = st.integers(1, 4)
FEW = settings(max_examples=settings().max_examples // 3)  # each traces and runs jax


@FEW
@given(st.data())
def test_dot_general(data: Draw) -> None:
    batch = data.draw(st.lists(SIZES, max_size=2))
    summed = data.draw(st.lists(SIZES, max_size=2))
    free = [data.draw(st.lists(SIZES, max_size=2)) for _ in range(2)]
    shapes, numbers = [], []
    for side in free:
        kinds = [("batch", n) for n in range(len(batch))] + [("sum", n) for n in range(len(summed))]
        kinds += [("free", n) for n in range(len(side))]
        order = data.draw(st.permutations(kinds))
        size = {"batch": batch, "sum": summed, "free": side}
        shapes.append(tuple(size[kind][n] for kind, n in order))
        numbers.append(
            [[order.index((kind, n)) for n in range(len(size[kind]))] for kind in ("sum", "batch")]
        )
    (left_sum, left_batch), (right_sum, right_batch) = numbers
    dims = ((left_sum, right_sum), (left_batch, right_batch))
    agree(lambda x, y: lax.dot_general(x, y, dims), draw(shapes[0]), draw(shapes[1], seed=1))


def _moves(data: Draw, x: Any) -> Any:
    """One random equation that moves elements of an array of rank 1 to 3."""
    kind = data.draw(
        st.sampled_from(
            ["transpose", "slice", "rev", "pad", "reshape", "concatenate", "tile", "roll", "double"]
        )
    )
    rank = x.ndim
    match kind:
        case "transpose":
            return jnp.transpose(x, data.draw(st.permutations(range(rank))))
        case "slice":
            cut = []
            for size in x.shape:
                start = data.draw(st.integers(0, size - 1))
                cut.append(
                    slice(
                        start, data.draw(st.integers(start + 1, size)), data.draw(st.integers(1, 3))
                    )
                )
            return x[tuple(cut)]
        case "rev":
            return lax.rev(x, (data.draw(st.integers(0, rank - 1)),))
        case "pad":
            low = [data.draw(st.integers(1 - size, 2)) for size in x.shape]
            high = [
                data.draw(st.integers(1 - size - min(a, 0), 2))
                for a, size in zip(low, x.shape, strict=True)
            ]
            fill = data.draw(st.sampled_from([0.0, 1.5, -math.inf]))
            return lax.pad(x, fill, [(a, b, 0) for a, b in zip(low, high, strict=True)])
        case "reshape" if rank > 1:
            n = data.draw(st.integers(0, rank - 2))
            return x.reshape(*x.shape[:n], x.shape[n] * x.shape[n + 1], *x.shape[n + 2 :])
        case "reshape":
            factors = [n for n in range(1, x.size + 1) if x.size % n == 0]
            first = data.draw(st.sampled_from(factors))
            return x.reshape(first, x.size // first)
        case "concatenate":
            return jnp.concatenate([x, x * 2], data.draw(st.integers(0, rank - 1)))
        case "tile":
            return jnp.tile(x, data.draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)))
        case "roll":
            return jnp.roll(x, data.draw(st.integers(-3, 3)), data.draw(st.integers(0, rank - 1)))
        case _:
            return x + x


@FEW
@given(st.data())
def test_chains_of_moves(data: Draw) -> None:
    """Each chain is drawn once, then replayed on tracers: choices must not depend on the value."""
    x = draw(tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3))))
    answers: list[Any] = []

    class Recorder:
        def draw(self, strategy: Any) -> Any:
            answers.append(data.draw(strategy))
            return answers[-1]

    class Replay:
        def __init__(self) -> None:
            self.left = iter(answers)

        def draw(self, strategy: Any) -> Any:
            return next(self.left)

    length = data.draw(st.integers(1, 5))

    def run(source: Any, value: Any) -> Any:
        for _ in range(length):
            value = _moves(source, value)
            if value.size > 400:
                break
        return value

    run(Recorder(), jnp.asarray(x))

    def fun(value: Any) -> Any:
        moved = run(Replay(), value)
        return moved, jnp.sum(moved, axis=0), jnp.max(moved)

    try:
        agree(fun, x)
    except Exception as error:
        if "common factors" not in str(error):
            raise


@FEW
@given(st.data())
def test_reductions(data: Draw) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=4)))
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    name = data.draw(st.sampled_from(["sum", "prod", "max", "min"]))
    agree(lambda x: getattr(jnp, name)(x, axis=axes), draw(shape))


MODES = ["clip", "fill", "promise_in_bounds"]


@FEW
@given(st.data(), st.sampled_from(MODES), st.sampled_from(["int32", "int8", "uint8", "int64"]))
def test_gather(data: Draw, mode: str, dtype: str) -> None:
    """All dimension numbers of `lax.gather`, indices inside and outside of the array."""
    rank = data.draw(st.integers(1, 3))
    batching = data.draw(st.integers(0, rank - 1))
    shape = tuple(data.draw(st.integers(2, 4)) for _ in range(rank))
    batch = (*shape[:batching], *data.draw(st.lists(st.integers(1, 3), max_size=2)))
    indexed = data.draw(st.permutations(range(batching, rank)))[
        : data.draw(st.integers(1, rank - batching))
    ]
    sizes = [1] * batching + [data.draw(st.integers(1, n)) for n in shape[batching:]]
    collapsed = [d for d in range(batching, rank) if sizes[d] == 1 and data.draw(st.booleans())]
    offsets = rank - batching - len(collapsed)
    places = data.draw(st.permutations(range(len(batch) + offsets)))[:offsets]
    numbers = lax.GatherDimensionNumbers(
        offset_dims=tuple(sorted(places)),
        collapsed_slice_dims=tuple(collapsed),
        start_index_map=tuple(indexed),
        operand_batching_dims=tuple(range(batching)),
        start_indices_batching_dims=tuple(range(batching)),
    )
    low = 0 if dtype.startswith("u") else -3
    number = math.prod(batch) * len(indexed)
    flat = data.draw(st.lists(st.integers(low, 6), min_size=number, max_size=number))
    starts = np.array(flat, dtype).reshape(*batch, len(indexed))
    agree(
        lambda x, i: lax.gather(x, i, numbers, tuple(sizes), mode=mode) * 2,
        draw(shape),
        starts,
    )


@pytest.mark.parametrize("dtype", ["int32", "uint16", "bool", "float64"])
@pytest.mark.parametrize("fill", [None, 3])
def test_what_fill_gives_outside(dtype: str, fill: int | None) -> None:
    x = draw((5,), dtype)
    index = np.array([-1, -6, 0, 4, 5, 1 << 20])
    given_fill = None if fill is None else np.asarray(fill, dtype)[()]
    agree(lambda x, i: x.at[i].get(mode="fill", fill_value=given_fill), x, index)


@FEW
@given(st.data())
def test_dynamic_slices(data: Draw) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    sizes = tuple(data.draw(st.integers(1, n)) for n in shape)
    starts = [np.int32(data.draw(st.integers(-7, 7))) for _ in shape]
    agree(lambda x, *s: lax.dynamic_slice(jnp.exp(x), s, sizes), draw(shape), *starts)
    agree(
        lambda x, u, *s: lax.dynamic_update_slice(x, jnp.cos(u), s) * x,
        draw(shape),
        draw(sizes, seed=1),
        *starts,
    )
