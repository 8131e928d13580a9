"""Drawings are well-formed SVG, show every part once, and keep inside the picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from prism_jax.ir.draw import draw_sgraph, formula
from prism_jax.ir.nodes import Axis, Carried, Const, Iota, Load, Reduce, Tensor, affine, at
from tests.ir import samples
from tests.ir.samples import op

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
def test_pictures_show_every_part_inside_the_frame(make):
    _, sgraph = make()
    root = ElementTree.fromstring(draw_sgraph(sgraph))
    texts = [t.text or "" for t in root.iter(f"{SVG}text")]
    for tensor in (*sgraph.inputs, *sgraph.outputs):
        assert any(t.startswith(f"{tensor.name}: ") for t in texts)
    for kernel in sgraph.kernels:
        assert sum(t.startswith(f"kernel {kernel.name}") for t in texts) == 1
        for loop in kernel.all_loops:
            assert any(t.startswith(f"loop {loop.axis}/") for t in texts)
            for accumulator in loop.accumulators:
                assert sum(t.startswith(f"{accumulator.name} ←") for t in texts) == 1
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for box in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(box.attrib[n]) for n in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height


def test_names_are_escaped():
    _, sgraph = samples.gram()
    renamed = type(sgraph)("<a & b>", sgraph.inputs, sgraph.nodes, sgraph.outputs)
    title = ElementTree.fromstring(draw_sgraph(renamed)).find(f"{SVG}title")
    assert title is not None
    assert title.text == "sGraph <a & b>"


def test_formulas():
    i, k = Axis("i", 2), Axis("k", 3)
    x = Load(Tensor("x", (2, 3), "float32"), (at(i), at(k)))
    shifted = Load(Tensor("y", (2, 4, 3), "float32"), (at(1), affine([(k, 1)], 1), at(k)))
    m = Carried("m", "new", "real", (i,))
    weight = op("exp", op("sub", x, m))
    assert (
        formula(Reduce("sum", (k,), op("mul", weight, shifted)), 4)
        == "sum_k (exp((x[i,k] − m.new)) · y[1,…,k])"
    )
    assert formula(op("neg", op("neg", op("neg", x))), 2) == "neg(neg(…))"
    assert (
        formula(
            op("where", op("ge", Iota(i), Iota(k)), Const(0.5), Carried("l", "final", "real", ()))
        )
        == "where(ge(i, k), 0.5, l)"
    )
    assert formula(Const(True, "bool")) == "True"
