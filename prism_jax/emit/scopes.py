"""Nested scopes of emitted source: where a line goes, and which values are known there.

A value is computed in the outermost scope in which everything it is made of exists, so what does
not depend on a loop is computed before it. Lines of a scope are written in order; a nested scope
becomes text inside its parent when it is closed, hence after everything that was hoisted out of it.

>>> outer = Scope()
>>> inner = outer.child()
>>> inner.add("y = x + step")
>>> outer.add("x = load()")
>>> outer.block("for step in range(4):", inner)
>>> print(outer.text())
x = load()
for step in range(4):
    y = x + step
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

__all__ = ["Scope", "fitted", "load_function"]

T = TypeVar("T")


class Scope(Generic[T]):
    """Lines at one depth, and the values that they define by key."""

    def __init__(self, parent: Scope[T] | None = None) -> None:
        self.parent = parent
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.lines: list[str] = []
        self._known: dict[Hashable, T] = {}

    def child(self) -> Scope[T]:
        """A scope inside this one."""
        return Scope(self)

    def at(self, depth: int) -> Scope[T]:
        """This scope or the one around it that has the given depth."""
        scope = self
        while scope.depth > depth:
            assert scope.parent is not None
            scope = scope.parent
        return scope

    def add(self, *lines: str) -> None:
        """Appends lines."""
        self.lines += lines

    def block(self, header: str, inner: Scope[T]) -> None:
        """Appends `header` and, indented, the lines of `inner`."""
        self.lines.append(header)
        self.lines += ["    " + line if line else line for line in inner.lines]

    def inline(self, inner: Scope[T]) -> None:
        """Appends the lines of `inner` as they are."""
        self.lines += inner.lines

    def find(self, key: Hashable) -> T | None:
        """The value known here, or in a scope around, under `key`."""
        scope: Scope[T] | None = self
        while scope is not None:
            found = scope._known.get(key)
            if found is not None:
                return found
            scope = scope.parent
        return None

    def know(self, key: Hashable, value: T) -> T:
        """Remembers `value` here under `key`."""
        self._known[key] = value
        return value

    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def fitted(text: str, width: int = 92) -> list[str]:
    """A statement on one line, or, if it is too long and ends in a call, with one argument a line.

    >>> fitted("y = f(g(a, b), c)", 12)
    ['y = f(', '    g(a, b),', '    c,', ')']
    """
    if len(text) <= width or not text.endswith(")"):
        return [text]
    level, start = 0, len(text)
    while start > 0:  # the bracket that the last one closes
        start -= 1
        level += {")": 1, "]": 1, "(": -1, "[": -1}.get(text[start], 0)
        if level == 0:
            break
    if not (start and (text[start - 1].isidentifier() or text[start - 1] == "]")):
        return [text]  # a bracket that only groups: a comma inside would change the meaning
    arguments = [""]
    for letter in text[start + 1 : -1]:
        level += {")": -1, "]": -1, "}": -1, "(": 1, "[": 1, "{": 1}.get(letter, 0)
        if letter == "," and level == 0:
            arguments.append("")
        else:
            arguments[-1] += letter
    inner = [f"    {a.strip()}," for a in arguments if a.strip()]
    return [text[: start + 1], *inner, ")"]


def load_function(text: str, name: str) -> Callable[..., Any]:
    """The function `name` that the Python source `text` defines; tracebacks show its lines."""
    filename = f"<prism_jax {name}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(text, filename, "exec"), namespace)
    return namespace[name]
