"""Names in emitted source: every axis, tensor and value gets one readable identifier of its own.

>>> names = Names(("tl",))
>>> names.new("k'"), names.new("k'"), names.new("tl"), names.new("2 x"), names.new("class")
('k_', 'k__2', 'tl_2', 'v2_x', 'class_2')
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

__all__ = ["Names", "identifier"]


def identifier(text: str) -> str:
    """The identifier nearest to `text`: primes and punctuation become underscores."""
    plain = re.sub(r"\W", "_", text, flags=re.ASCII)
    return plain if plain and not plain[0].isdigit() else f"v{plain}"


class Names:
    """Gives out identifiers, each once. Equal requests in equal order give equal names."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._taken = {*reserved, *keyword.kwlist}

    def new(self, wish: str) -> str:
        """`wish`, made an identifier, with the least number behind it that makes it new."""
        base = identifier(wish)
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name
