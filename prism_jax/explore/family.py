"""One search serves a family of shapes and dtypes.

A *family* are the programs that differ in the sizes of their axes and the dtypes of their reals
only. What was searched for one of them (forms, structures, which sets of kernels were cut and by
what bound) holds for another one that meets the *side conditions* recorded on the way:

* every comparison of a size with a limit, or of two sizes, has the same answer;
* axes that share one dimension of a tensor (windows, merged dimensions) have the same sizes, since
  their steps are numbers of the structure;
* the e-graph offers the same forms in the same order: every comparison that saturation and
  extraction made has the same answer (`egraph.decisions`), and no size has become a number of a
  form (the sum of a term over an axis that it does not have). Where an answer differs, the e-graph
  is asked again, and offers the same forms or others;
* each precision that a reduction asked for has one counterpart.

Then a second shape costs instantiation only: bounds and estimates are evaluated at the new sizes,
cuts that no longer hold are reopened. Where a condition fails, a new family is searched.

A family as text (`Family.text`, `parse`) holds what a process needs to skip the e-graph and to look
into the best plan's kernels first; it is a value for a cache.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from prism_jax.device import Device
from prism_jax.explore.closed import Sizes
from prism_jax.explore.pruning import DEFAULT
from prism_jax.explore.result import SearchResult
from prism_jax.explore.search import Form, Instance, Place, Search
from prism_jax.explore.targets import kept_dtype, wide
from prism_jax.ir.counts import size_of, width
from prism_jax.ir.leaves import Rewriting
from prism_jax.ir.nodes import (
    Axis,
    Const,
    Index,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Tensor,
    sort_of,
)
from prism_jax.ir.program import Program

if TYPE_CHECKING:
    from prism_jax.egraph.decisions import Decisions

MOST = 256
"""Families that a process keeps."""


@dataclass(frozen=True)
class Extracted:
    """The forms of a program, itself first; whether the e-graph was saturated; and what the choice
    of these forms rests on.
    """

    forms: Sequence[Form]
    saturated: bool
    decisions: Decisions


Extract = Callable[[Program, Device], Extracted]


def skeleton(program: Program) -> Hashable:
    """The program without its sizes and without the dtypes of its reals. Equal for the programs of
    one family.
    """
    numbers: dict[Node, int] = {}

    def index(one: Index) -> Hashable:
        terms = tuple((t.name if isinstance(t, Axis) else numbers[t], c) for t, c in one.terms)
        return terms, one.offset

    rows: list[Hashable] = [program.name, program.compute]
    rows += [(t.name, len(t.shape), sort_of(t.dtype)) for t in program.inputs]
    for node in program.nodes:
        numbers[node] = len(numbers)
        below = tuple(numbers[c] for c in node.children)
        match node:
            case Const():
                rows.append((type(node.value).__name__, repr(node.value), node.sort_))
            case Iota():
                rows.append((node.axis.name, node.sort_))
            case Load():
                guards = tuple((index(g.index), g.low, g.high) for g in node.guard)
                rows.append((node.tensor.name, tuple(map(index, node.index)), guards, below))
            case Pointwise():
                rows.append((node.op, below, repr(node.parameter)))
            case Reduce():
                asked = node.precision is not None
                axes = tuple(a.name for a in node.axes)
                rows.append((node.monoid, axes, below, asked, node.index_sort))
            case _:
                raise AssertionError(f"{type(node).__name__} is not in a program")
    rows += [
        (s.tensor.name, sort_of(s.tensor.dtype), tuple(map(index, s.index)), numbers[s.value])
        for s in program.outputs
    ]
    return tuple(rows)


def _precisions(program: Program) -> list[Precision | None]:
    return [n.precision for n in program.nodes if isinstance(n, Reduce)]


def _sizes(program: Program) -> dict[str, int]:
    return {a.name: a.size for a in program.axes if isinstance(a.size, int)}


def _dtypes(program: Program) -> Hashable:
    """What forms and their costs depend on beside sizes."""
    inputs = tuple(t.dtype for t in program.inputs)
    return inputs, tuple(s.tensor.dtype for s in program.outputs), tuple(_precisions(program))


def _tied(program: Program) -> frozenset[str]:
    """Axes that share a dimension with others."""
    found: set[str] = set()
    for node in program.nodes:
        if isinstance(node, Load):
            for index in (*node.index, *(g.index for g in node.guard)):
                if len(index.terms) > 1:
                    found.update(t.name for t, _ in index.terms if isinstance(t, Axis))
    for store in program.outputs:
        for index in store.index:
            if len(index.terms) > 1:
                found.update(t.name for t, _ in index.terms if isinstance(t, Axis))
    return frozenset(found)


@dataclass
class Family:
    """A search and the program that it was made for. `chosen`: what the choice of its forms rests
    on, by dtypes; each entry is a region of sizes in which the e-graph offers the same forms.
    """

    search: Search
    chosen: list[tuple[Hashable, Decisions]] = field(
        default_factory=list[tuple[Hashable, "Decisions"]]
    )
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def program(self) -> Program:
        """The program at whose sizes the structures are written."""
        return self.search.program

    def conditions(self) -> list[str]:
        """The side conditions on sizes, in words."""
        found = sorted(map(str, self.search.structures.conditions))
        found += [
            f"{a} {'=' if same else '!='} {b}"
            for (a, b), same in sorted(self.search.names.equal.items())
        ]
        own = _sizes(self.program)
        return found + [f"{name} = {own[name]}" for name in sorted(_tied(self.program))]

    def meets(self, sizes: dict[str, int]) -> bool:
        """Whether the recorded comparisons have the same answers at these sizes."""
        own = _sizes(self.program)

        for condition in self.search.structures.conditions:
            known = size_of(condition.axis, sizes)
            if known is None or not condition.met(known):
                return False
        for (a, b), same in self.search.names.equal.items():
            if (size_of(a, sizes) == size_of(b, sizes)) != same:
                return False
        return all(sizes[name] == own[name] for name in _tied(self.program))

    def instance(self, program: Program) -> Instance | None:
        """The program as an instance of the family, None if a side condition fails. Whether the
        e-graph would offer the same forms is not asked here.
        """
        if program.digest == self.program.digest:
            return Instance(program)
        sizes = _sizes(program)
        if sizes.keys() != _sizes(self.program).keys() or not self.meets(sizes):
            return None
        if not self._one_size_a_name:
            return None
        changed: dict[Precision, Precision] = {}
        for old, new in zip(_precisions(self.program), _precisions(program), strict=True):
            if (old is None) != (new is None):
                return None
            if old is None or new is None:
                continue
            for a, b in ((old, new), (wide(old), wide(new))):
                if changed.setdefault(a, b) != b:
                    return None
        declared = {t.name: t for t in (*program.inputs, *(s.tensor for s in program.outputs))}
        dtypes = {
            name: kept_dtype(reduction, program.compute, changed)
            for reduction, name in self.search.names.tensors.items()
            if isinstance(reduction, Reduce)
        }
        widths = {name: width(t.dtype) for name, t in declared.items()}
        here = Sizes(
            axes=sizes,
            bytes=widths | {name: width(dtype) for name, dtype in dtypes.items()},
            whole={name: _elements(t) for name, t in declared.items()},
            precisions={old: new for old, new in changed.items() if old != new},
        )

        def axis(old: Axis) -> Axis:
            return Axis(old.name, here.extent(old)) if isinstance(old.size, int) else old

        def tensor(old: Tensor, index: tuple[Index, ...]) -> Tensor:
            if old.name in declared:
                return declared[old.name]
            shape = tuple(i.axis.size if i.axis is not None else 0 for i in index)
            return Tensor(old.name, shape, dtypes.get(old.name, old.dtype))

        rewriting = Rewriting(axis, tensor, lambda p: changed.get(p, p))
        return Instance(program, here, rewriting)

    def offers(self, program: Program) -> bool:
        """Whether the e-graph is known to offer a program the family's forms."""
        dtypes, sizes = _dtypes(program), _sizes(program)
        return any(known == dtypes and made.hold(sizes) for known, made in self.chosen)

    @cached_property
    def _one_size_a_name(self) -> bool:
        """Whether every axis of the forms has the size that its name stands for."""
        own = _sizes(self.program)
        axes = {a for p in self.search.forms for a in p.form.program.axes}
        return all(size_of(a.name, own) == a.size for a in axes)

    def text(self) -> str:
        """The family as one line of JSON."""
        from prism_jax.ir.text import print_program

        hint = self.search.hint
        place = None
        if hint is not None:
            keys = self.search.forms[hint.form].keys
            held = [n for n, key in enumerate(keys) if key in hint.materialised]
            place = [hint.form, held, hint.joined]
        forms = [
            {"program": print_program(p.form.program), "axioms": list(p.form.axioms)}
            for p in self.search.forms
        ]
        value = {"forms": forms, "saturated": self.search.saturated, "best": place}
        return json.dumps(value, sort_keys=True)


def _elements(tensor: Tensor) -> int:
    total = 1
    for size in tensor.shape:
        total *= int(size)
    return total


def parse(text: str) -> Family:
    """The family that `Family.text` wrote. Raises ValueError for anything else."""
    from prism_jax.ir.text import parse_program

    try:
        value = json.loads(text)
        forms = [Form(parse_program(f["program"]), tuple(f["axioms"])) for f in value["forms"]]
        search = Search(forms[0].program, forms, DEFAULT, bool(value["saturated"]))
        if value["best"] is not None:
            number, places, joined = value["best"]
            keys = search.forms[number].keys
            search.hint = Place(number, frozenset(keys[n] for n in places), bool(joined))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not the text of a family: {error}") from error
    return Family(search)


class Families:
    """The families of a process, by skeleton and device; the ones asked for last are kept."""

    def __init__(self, extract: Extract) -> None:
        self._extract = extract
        self._known: OrderedDict[tuple[Hashable, str], list[Family]] = OrderedDict()
        self._lock = threading.Lock()

    def search(self, program: Program, device: Device, deadline: float) -> SearchResult:
        """The search for a program: an instance of a family that is known, or a new one.
        `deadline`: as `time.perf_counter` counts.
        """
        key = (skeleton(program), device.name)
        with self._lock:
            known = self._known.setdefault(key, [])
            self._known.move_to_end(key)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        for family in list(known):
            with family.lock:
                found = self._again(family, program, device, deadline)
            if found is not None:
                return found
        found = self._extract(program, device)
        family = Family(Search(program, found.forms, DEFAULT, found.saturated))
        family.chosen.append((_dtypes(program), found.decisions))
        with family.lock:
            result = family.search.at(Instance(program), device, deadline)
        with self._lock:  # also where the budget ended it: the next search goes on from there
            known.append(family)
        return result

    def _again(
        self, family: Family, program: Program, device: Device, deadline: float
    ) -> SearchResult | None:
        instance = family.instance(program)
        if instance is None:
            return None
        if instance.rewriting is not None and not self._same_forms(family, program, device):
            return None
        result = family.search.at(instance, device, deadline)
        if not family.meets(
            _sizes(program)
        ):  # what was reopened asked for more than this shape has
            return None
        return replace(result, reused=True)

    def _same_forms(self, family: Family, program: Program, device: Device) -> bool:
        """Asks the e-graph where it is not known what it would offer."""
        if family.offers(program):
            return True
        found = self._extract(program, device)
        known = [skeleton(p.form.program) for p in family.search.forms]
        same = [skeleton(form.program) for form in found.forms] == known
        if same:
            family.chosen.append((_dtypes(program), found.decisions))
        return same

    def export(self) -> str:
        """Every family, one line each, with the device it was searched for."""
        with self._lock:
            rows = [(key, family) for key, known in self._known.items() for family in known]
        return "\n".join(json.dumps([key[1], family.text()]) for key, family in rows)

    def load(self, text: str) -> int:
        """Adds the families of an export; returns how many. Raises ValueError for other text."""
        count = 0
        for line in text.splitlines():
            name, value = json.loads(line)
            family = parse(value)
            with self._lock:
                self._known.setdefault((skeleton(family.program), name), []).append(family)
            count += 1
        return count

    def forget(self) -> None:
        """Forgets every family (for tests and measurements)."""
        with self._lock:
            self._known.clear()
