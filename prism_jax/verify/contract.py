"""The accuracy contract (design, section 8): is the candidate as good as the user's own program
under `jax.jit`?

In: a program (the float64 oracle), the reference (the user's region under jit), the candidate (the
  emitted plan). Out: a `ContractResult` that says whether it holds, by how much, and on which draw
  it does not. Invariant: a candidate passes only if for at least 8 draws that count, and on every
  draw at all, each output row has

    err(candidate, oracle) <= accuracy * err(reference, oracle) + floor        (err: maximum, and
    root mean square)

with the floor of `measure`, NaN and infinities stand where the reference has them, and the same
check applied to a planted mutant (the reference's outputs, off by an eighth) fails on each draw
that counts.

Luck. A row whose error hangs on one rounding (the two largest scores of a sharp softmax) may be hit
exactly by the reference and not by an equally good candidate. Before such a row is called a
failure, the user's program is evaluated in float64 with every value off at random by one unit of
rounding: an error within `LUCK` times what that does to the output is what the program itself would
make with its rounding rolled again. `luck.py` computes it, only for rows that would fail; it does
not excuse a loss by cancellation, which is larger by orders of magnitude (the tests assert it, and
that re-ordered copies of the reference pass with seed after seed). It takes a dozen evaluations by
numpy; where each would take long, and a faster oracle is lent, both sides are run on inputs nearly
the same instead, as the benchmarks do (`again.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from prism_jax.ir.nodes import REAL, Store
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.verify import again, luck
from prism_jax.verify.discrete import compare_integers
from prism_jax.verify.draws import Draw, draws, extra_draws, wild_draws
from prism_jax.verify.measure import ULPS, Rows, rows
from prism_jax.verify.oracles import COMPARED, Fast, Oracle, OracleError
from prism_jax.verify.results import ContractResult, DrawResult, counting
from prism_jax.verify.rounded import evaluate_rounded
from prism_jax.verify.sample import Sample, choose

Array: TypeAlias = Any
Call: TypeAlias = Callable[..., Any]
"""Takes the inputs in the program's order, gives an output or a sequence of them."""

NEEDED = 8
BUDGET = 1 << 21
SECONDS = 120.0
"""The most that the oracle may take for the draws that must count."""


def check(
    program: Program,
    reference: Call,
    candidate: Call,
    accuracy: float = 2.0,
    seed: int = 0,
    budget_elements: int = BUDGET,
    device: str = "",
    stop_early: bool = True,
    seconds: float = SECONDS,
    fast: Fast | None = None,
) -> ContractResult:
    """Checks the contract.

    Args:
        program: what both compute; its float64 evaluation is the oracle.
        reference: the user's region under `jax.jit`, called with the inputs in the program's order.
        candidate: the emitted plan, called alike.
        accuracy: how many times the reference's error the candidate may make.
        seed: decides every random number.
        budget_elements: element operations the oracle may spend on one draw; more elements than
          that are sampled.
        device: written into the protocol.
        stop_early: stop at the first draw that fails.
        seconds: refuse where the oracle would take longer, by an estimate made before any draw. A
          sum over everything cannot be sampled.
        fast: makes an oracle that is used where numpy's is dear.
    """
    samples = choose(program, budget_elements, seed)
    table: list[DrawResult] = []
    try:
        evaluator = Oracle(program, samples, NEEDED, seconds, fast)
        session = Session(program, reference, candidate, accuracy, samples, evaluator)
        session.judges_luck = evaluator.each <= COMPARED
        session.rolls = not session.judges_luck and evaluator.affords(again.TIMES)
        drawn = _until_enough(program, seed, table, evaluator.dear)
        for draw, inputs, values in evaluator.over(drawn, lambda: counting(table)):
            table.append(session.run(draw, inputs, values))
            if stop_early and not table[-1].passed:
                break
    except OracleError as error:
        return ContractResult(False, float("inf"), tuple(table), (), str(error))
    failed = [d for d in table if not d.passed]
    count = counting(table)
    reason = ""
    if failed:
        worst = max(failed, key=lambda d: d.ratio)
        reason = f"{worst.output} on {worst.draw}: {worst.reason}"
    elif count < NEEDED:
        reason = f"only {count} draws give finite outputs that are not zero, {NEEDED} are needed"
    protocol = _protocol(accuracy, seed, evaluator, session, device, table)
    return ContractResult(
        not reason,
        max((d.ratio for d in table), default=float("inf")),
        tuple(table),
        protocol,
        reason,
    )


def _until_enough(
    program: Program, seed: int, table: Sequence[DrawResult], dear: bool
) -> Iterator[Draw]:
    """All draws, and more until enough count; only until enough count where the oracle is dear."""
    always = () if dear else draws(seed)
    yield from always
    yield from wild_draws(program, seed)
    for draw in (*(draws(seed) if dear else ()), *extra_draws(seed)):
        if counting(table) >= NEEDED:
            return
        yield draw


class Session:
    """One run of the protocol: what the draws share."""

    def __init__(
        self,
        program: Program,
        reference: Call,
        candidate: Call,
        accuracy: float,
        samples: tuple[Sample, ...],
        values: Callable[[Mapping[str, Array]], Sequence[Array]],
    ) -> None:
        """`values`: of the oracle, at the samples."""
        self.program, self.reference, self.candidate = program, reference, candidate
        self.accuracy, self.samples, self.values = accuracy, samples, values
        self.sampled_reference = False
        self.judges_luck, self.rolls = True, False
        """By what rounding does to the program; by other inputs. If by neither, rows fail."""
        self.caught = self.planted = 0

    @property
    def excuse(self) -> str:
        """How luck is judged, for people."""
        if self.rolls:
            return f"root mean squares over {again.TIMES + 1} inputs nearly the same"
        if self.judges_luck:
            return f"{luck.LUCK:g} x the effect of one unit of rounding in every value"
        return "not judged"

    def run(
        self, draw: Draw, inputs: Mapping[str, Array], o: Sequence[Array], retry: bool = True
    ) -> DrawResult:
        """One draw, given the oracle's values on its inputs; `retry`: rows that fail together by
        one accident are given another draw.
        """
        arrays = [inputs[t.name] for t in self.program.inputs]
        r = self.referee(inputs, arrays)
        given = _outputs(self.candidate, arrays, self.program)
        mismatch = _ill_typed(given, self.program)
        if mismatch:
            return DrawResult(
                str(draw), False, float("inf"), float("inf"), 0.0, 0.0, "", 0, mismatch
            )
        c = [s.of(x) for s, x in zip(self.samples, given, strict=True)]
        results = [
            self.output(draw, inputs, n, store, o[n], r[n], c[n], retry)
            for n, store in enumerate(self.program.outputs)
        ]
        worst = max(results, key=lambda d: (not d.passed, d.ratio))
        counts = any(d.counts for d in results) and self.mutant_fails(o, r)
        return replace(worst, counts=counts)

    def passes(self, draw: Draw) -> bool:
        """Whether the contract holds on another draw, nothing excused."""
        inputs = draw.inputs(self.program)
        return self.run(draw, inputs, self.values(inputs), retry=False).passed

    def referee(self, inputs: Mapping[str, Array], arrays: Sequence[Array]) -> list[Array]:
        """The reference's samples; in the user's dtypes element by element where it does not fit in
        memory.
        """
        if not self.sampled_reference:
            try:
                whole = _outputs(self.reference, arrays, self.program)
                return [s.of(x) for s, x in zip(self.samples, whole, strict=True)]
            except (MemoryError, RuntimeError) as error:
                if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                self.sampled_reference = True
        return evaluate_rounded(self.program, inputs, self.samples)

    def output(
        self,
        draw: Draw,
        inputs: Mapping[str, Array],
        n: int,
        store: Store,
        o: Array,
        r: Array,
        c: Array,
        retry: bool,
    ) -> DrawResult:
        """One output of one draw."""
        name = store.tensor.name
        if store.value.sort != REAL:
            verdict = compare_integers(
                self.program, inputs, n, self.samples[n], o, r, c, self.accuracy
            )
            return DrawResult(
                str(draw),
                verdict.counts,
                verdict.ratio,
                verdict.error,
                verdict.reference_error,
                verdict.slack,
                name,
                0,
                verdict.reason,
            )
        dtype = store.tensor.dtype
        o, r, c = (np.asarray(x, np.float64) for x in (o, r, c))
        found = rows(o, r, c, dtype, self.accuracy)
        counts = _informative(o)
        if found.misplaced.any():
            row = int(np.argmax(found.misplaced.any(1)))
            reason = _placement(found.misplaced, o, r, c, row)
            return DrawResult(
                str(draw),
                counts,
                float("inf"),
                float("inf"),
                0.0,
                float(found.floor[row]),
                name,
                0,
                reason,
            )
        ratio = found.ratio
        lucky = 0
        if ratio.size and ratio.max() > 1 and self.judges_luck:
            # A float64 program has an oracle that is as wrong as itself: all rows may be lucky.
            asked = (self.program, inputs, n, self.samples[n], found, draw.seed)
            excused = luck.ratios(*asked, many=dtype == "float64")
            if retry and not np.isfinite(excused).any():  # so many rows, or one thing in all?
                loose, other = (
                    luck.ratios(*asked, many=True),
                    replace(draw, seed=draw.seed + 500_000),
                )
                if np.minimum(ratio, loose).max() <= 1 and self.passes(other):
                    excused = loose
            lucky = int(((ratio > 1) & (excused <= 1)).any(1).sum())
            ratio = np.minimum(ratio, excused)
        elif ratio.size and ratio.max() > 1 and self.rolls:
            failing = (ratio > 1).any(1)
            ratio = np.where(failing[:, None], self.rolled(inputs, n, store, found, draw), ratio)
            lucky = int((failing & (ratio <= 1).all(1)).sum())
        if not ratio.size:
            return DrawResult(str(draw), counts, 0.0, 0.0, 0.0, 0.0, name)
        row, statistic = np.unravel_index(int(ratio.argmax()), ratio.shape)
        error, of_reference = (
            float(found.candidate[row, statistic]),
            float(found.reference[row, statistic]),
        )
        reason = ""
        if ratio[row, statistic] > 1:
            which = ("largest", "root-mean-square")[int(statistic)]
            reason = (
                f"{which} error {error:.3g} in row {row} is {ratio[row, statistic]:.3g} times the "
                f"{self.accuracy:g} x {of_reference:.3g} + {found.floor[row]:.3g} allowed"
            )
        return DrawResult(str(draw), counts, float(ratio[row, statistic]), error, of_reference,
                          float(found.floor[row]), name, lucky, reason)  # fmt: skip

    def rolled(
        self, inputs: Mapping[str, Array], n: int, store: Store, found: Rows, draw: Draw
    ) -> Array:
        """(rows, 2): the share of the allowance over this draw and others nearly the same."""
        arrays, others = [inputs[t.name] for t in self.program.inputs], list[Rows]()
        for number in range(again.TIMES):
            near = again.moved(arrays, draw.seed * again.TIMES + number)
            named = {t.name: x for t, x in zip(self.program.inputs, near, strict=True)}
            given = _outputs(self.candidate, near, self.program)[n]
            sides = self.values(named)[n], self.referee(named, near)[n], self.samples[n].of(given)
            o, r, c = (np.asarray(x, np.float64) for x in sides)
            others.append(rows(o, r, c, store.tensor.dtype, self.accuracy))
            if others[-1].misplaced.any():
                return np.full(found.ratio.shape, np.inf)
        return again.shares(found, others)

    def mutant_fails(self, o: Sequence[Array], r: Sequence[Array]) -> bool:
        """Whether outputs that are off by an eighth would be noticed on this draw."""
        seen = False
        for n, store in enumerate(self.program.outputs):
            if store.value.sort != REAL:
                seen = seen or bool(np.asarray(o[n]).size)
                continue
            dtype = store.tensor.dtype
            off = 1 + max(0.125, 16 * float(ml_dtypes.finfo(numpy_dtype(dtype)).eps))
            reference = np.asarray(r[n], np.float64)
            mutant = rows(
                np.asarray(o[n], np.float64), reference, reference * off, dtype, self.accuracy
            )
            seen = seen or bool(mutant.ratio.size and mutant.ratio.max() > 1)
        self.planted += 1
        self.caught += seen
        return seen


def _informative(o: Array) -> bool:
    """At least 10 % of the oracle's outputs are finite and not zero."""
    return bool(o.size) and float((np.isfinite(o) & (o != 0)).mean()) >= 0.1


def _outputs(call: Call, arrays: Sequence[Array], program: Program) -> list[Array]:
    given = call(*arrays)
    if len(program.outputs) == 1 and not isinstance(given, tuple | list):
        given = (given,)
    if len(given) != len(program.outputs):
        raise ValueError(f"{len(given)} outputs for a program with {len(program.outputs)}")
    return [np.asarray(x) for x in given]


def _ill_typed(given: Sequence[Array], program: Program) -> str:
    for array, store in zip(given, program.outputs, strict=True):
        shape = tuple(int(s) for s in store.tensor.shape)
        if array.shape != shape or array.dtype != numpy_dtype(store.tensor.dtype):
            return f"{store.tensor.name} is {array.dtype}{list(array.shape)}, not {store.tensor}"
    return ""


def _placement(bad: Array, o: Array, r: Array, c: Array, row: int) -> str:
    column = int(np.argmax(bad[row]))
    return (
        f"{c[row, column]:.3g} in row {row} where the reference has {r[row, column]:.3g} "
        f"and the oracle {o[row, column]:.3g}"
    )


def _protocol(
    accuracy: float,
    seed: int,
    evaluator: Oracle,
    session: Session,
    device: str,
    table: Sequence[DrawResult],
) -> tuple[tuple[str, str], ...]:
    sizes = [
        "all" if s.whole else f"{len(s.row_coordinates())} x {s.columns}" for s in evaluator.samples
    ]
    return (
        ("rule", "err(c, o) <= accuracy * err(r, o) + floor per row; maximum and rms"),
        ("accuracy", repr(accuracy)),
        ("floor", f"{ULPS} ulp of the output dtype at the row's largest |oracle|"),
        ("oracle", f"float64 by {evaluator.name}; elements per output: {', '.join(sizes)}"),
        ("reference", "user's dtypes" if session.sampled_reference else "jax.jit"),
        ("draws", f"{len(table)} from seed {seed}; {counting(table)} count, {NEEDED} needed"),
        ("mutant", "the reference's outputs off by 1/8 (16 ulp in narrower formats)"),
        ("mutant_caught", f"{session.caught / max(1, session.planted):.3g}"),
        ("luck", f"{session.excuse}; {sum(d.lucky_rows for d in table)} rows used it"),
        ("versions", f"numpy {np.__version__}, jax {metadata.version('jax')}"),
        ("device", device),
    )  # fmt: skip
