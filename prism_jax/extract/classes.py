"""Dimension classes: which dimensions of a jaxpr's arrays are one and the same dimension.

In: facts "these two are one" (`unite`) and "this one is those, merged" (`split`). Out: for each
dimension its *leaves*: the classes whose axes index it, most significant first. A dimension that no
reshape merges has one leaf. Two different factorings of one class are refined to a common one;
where there is none, the later one is not recorded (the rule then divides indices).

>>> classes = Classes()
>>> merged, heads, width = classes.new(24), classes.new(4), classes.new(6)
>>> classes.split(merged, [heads, width])
True
>>> classes.leaves(merged) == [classes.find(heads), classes.find(width)]
True
"""

from __future__ import annotations

from collections.abc import Sequence


class Classes:
    """Union-find over dimensions, which are numbers here; a class may be a product of others."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.size: list[int] = []
        self.parts: dict[int, list[int]] = {}

    def new(self, size: int) -> int:
        """A dimension of a class of its own."""
        self.parent.append(len(self.parent))
        self.size.append(size)
        return len(self.parent) - 1

    def find(self, dim: int) -> int:
        """The representative of a dimension's class: its first member."""
        while self.parent[dim] != dim:
            self.parent[dim] = self.parent[self.parent[dim]]
            dim = self.parent[dim]
        return dim

    def unite(self, a: int, b: int) -> None:
        """Records that two dimensions of equal size are one."""
        a, b = sorted((self.find(a), self.find(b)))
        if a == b or self.size[a] != self.size[b]:
            return
        self.parent[b] = a
        other = self.parts.pop(b, None)
        if other is not None:
            self.split(a, other)

    def split(self, dim: int, parts: Sequence[int]) -> bool:
        """Records that a dimension is the product of others, most significant first.

        Returns whether the class is (now) cut at these places.
        """
        root, known = self.find(dim), self.parts.get(self.find(dim))
        if known is None:
            self.parts[root] = list(parts)
            return True
        return self._match(list(known), list(parts))

    def is_split(self, dim: int) -> bool:
        """Whether a dimension has more than one leaf."""
        return self.find(dim) in self.parts

    def leaves(self, dim: int) -> list[int]:
        """The unsplit classes that index a dimension, most significant first."""
        root = self.find(dim)
        if root not in self.parts:
            return [root]
        return [leaf for part in self.parts[root] for leaf in self.leaves(part)]

    def _match(self, left: list[int], right: list[int]) -> bool:
        """Unites two factorings of one number from the least significant end."""
        while left and right:
            a, b = left.pop(), right.pop()
            if self.size[a] < self.size[b]:
                a, b, left, right = b, a, right, left
            if self.size[a] == self.size[b]:
                self.unite(a, b)
                continue
            if self.size[a] % self.size[b]:
                return False
            rest = self.new(self.size[a] // self.size[b])
            if not self.split(a, [rest, b]):
                return False
            left.append(rest)
        return True
