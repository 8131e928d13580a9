"""Bounds on a group that has no structure yet: never above an estimate of its kernels, and close
enough to spare structures.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import pytest

from prism_jax import device
from prism_jax.explore.closed import OWN
from prism_jax.explore.costs import Costs
from prism_jax.explore.partition import Counts
from prism_jax.explore.pruning import NONE
from prism_jax.explore.search import Form, Instance, Search
from tests.explore.functions import LARGE, SMALL, program

MOST_SETS = 64


def costs_of(name: str, large: bool, row: device.Device) -> tuple[Search, Costs]:
    """Every group of a program, and its costs."""
    source = program(name, large, jnp.float16)
    family = Search(source, [Form(source)], NONE, True)
    family.at(Instance(source), row, math.inf)
    return family, Costs(family.structures, row, OWN, Counts(), math.inf)


@pytest.mark.parametrize("name", sorted({*SMALL, *LARGE} - {"qk_norm_attention"}))
@pytest.mark.parametrize("kind", ["H100", "A100", "CPU"])
def test_a_glance_is_below_every_estimate(name: str, kind: str) -> None:
    for large, known in ((False, SMALL), (True, LARGE)):
        if name not in known:
            continue
        family, costs = costs_of(name, large, device.row(kind))
        groups = list(family.structures.groups.values())
        assert groups
        for group in groups:
            floor = costs.glance(group)
            assert floor > 0.0
            for way in costs.options(group):
                assert floor <= way.estimate, (group.name, way.why)


def test_few_rows_leave_multiprocessors_idle() -> None:
    """One kernel for attention at batch 2 either idles or reads keys again and again, so that two
    kernels are the cheapest way; with every multiprocessor busy it would look half as dear.
    """
    family, costs = costs_of("attention", True, device.row("H100"))
    [whole] = [g for g in family.structures.groups.values() if g.name == "attention"]
    busy = costs.least(whole, alone=True)
    seen = costs.glance(whole)
    best = costs.options(whole)[0].estimate
    assert busy < 0.6 * best
    assert 0.75 * best < seen <= best
