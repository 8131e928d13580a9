r"""Plans as text that parses back to an equal plan: what records, caches and the gallery keep.

The head has one line for each thing that a plan adds to its sGraph; the sGraph's text follows.

>>> from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
>>> from prism_jax.ir.sgraph import GridAxis, Kernel, SGraph
>>> i = Axis("i", 8)
>>> x, y = Tensor("x", (8,), "float32"), Tensor("y", (8,), "float32")
>>> kernel = Kernel("copy", (GridAxis(i, "T"),), (), (Store(y, (at(i),), Load(x, (at(i),))),))
>>> graph = SGraph("copy", (x,), (kernel,), (y,))
>>> plan = Plan(graph, "triton", "H100", (("T", 4),), (Schedule(8, hints=True),))
>>> print("\n".join(print_plan(plan).splitlines()[:4]))
plan triton for H100
sizes T=4
schedule num_warps=8 num_stages=3 hints=true
sgraph copy(x: f32[8]) -> (y: f32[8]) compute f32 {
>>> parse_plan(print_plan(plan)) == plan
True
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.ir.lexer import TextError
from prism_jax.ir.text import parse_sgraph, print_sgraph

__all__ = ["parse_plan", "print_plan"]

ALWAYS = ("num_warps", "num_stages")


def print_plan(plan: Plan) -> str:
    """The text of a plan."""
    lines = [f"plan {plan.backend} for {plan.device}"]
    if plan.sizes:
        lines.append("sizes " + " ".join(f"{symbol}={number}" for symbol, number in plan.sizes))
    lines += [_schedule(schedule) for schedule in plan.schedules]
    lines += [f"unroll {plan.unroll}"] if plan.unroll else []
    return "\n".join([*lines, print_sgraph(plan.sgraph)])


def parse_plan(text: str) -> Plan:
    """The plan that `print_plan` wrote.

    Raises:
      TextError: the text is none.
    """
    head, mark, rest = text.partition("sgraph ")
    lines = [line.split() for line in head.splitlines() if line.strip()]
    if not mark or not lines or lines[0][0] != "plan" or lines[0][2:3] != ["for"]:
        raise TextError("a plan's text begins with 'plan BACKEND for DEVICE' and holds an sGraph")
    backend, device = lines[0][1], " ".join(lines[0][3:])
    sizes: tuple[tuple[str, int], ...] = ()
    schedules: list[Schedule] = []
    unroll = 0
    for word, *items in lines[1:]:
        try:
            if word == "sizes":
                pairs = (item.split("=") for item in items)
                sizes = tuple((symbol, int(number)) for symbol, number in pairs)
            elif word == "schedule":
                schedules.append(_parsed(items))
            elif word == "unroll":
                unroll = int(items[0])
            else:
                raise ValueError(word)
        except (ValueError, IndexError) as error:
            raise TextError(f"no line of a plan: {' '.join((word, *items))}") from error
    return Plan(parse_sgraph(mark + rest), backend, device, sizes, tuple(schedules), unroll)


def _schedule(schedule: Schedule) -> str:
    items = [
        f"{field.name}={_value(getattr(schedule, field.name))}"
        for field in dataclasses.fields(schedule)
        if field.name in ALWAYS or getattr(schedule, field.name) != field.default
    ]
    return f"schedule {' '.join(items)}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(items: list[str]) -> Schedule:
    known = {field.name: field.default for field in dataclasses.fields(Schedule)}
    values: dict[str, Any] = {}
    for item in items:
        name, _, text = item.partition("=")
        if name not in known:
            raise ValueError(name)
        values[name] = text if isinstance(known[name], str) else json.loads(text)
    return Schedule(**values)
