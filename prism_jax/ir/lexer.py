"""Words and signs of the text form: the lower half of `ir/parse.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Never

from prism_jax.ir.nodes import FLOATS, INTEGERS

_KEYWORDS = (
    "program sgraph compute axes kernel library grid loop split acc store load iota carried if "
    "else rescale action live precision index true false inf nan"
)
RESERVED = frozenset(_KEYWORDS.split())
"""Words that a name must be quoted to be."""


def short(dtype: str) -> str:
    """A dtype's short name: f16, bf16, i32, u8, bool, real."""
    if dtype in FLOATS:
        return dtype.replace("bfloat", "bf").replace("float", "f")
    return dtype.replace("uint", "u").replace("int", "i") if dtype in INTEGERS else dtype


def word(name: str) -> str:
    """A name, in backquotes unless it is an ordinary word."""
    plain = re.fullmatch(r"[A-Za-z_][\w']*", name) and name not in RESERVED
    return name if plain else f"`{name}`"


class TextError(ValueError):
    """The text is not that of a program or sGraph; says the line."""


_TOKEN = re.compile(
    r"(?P<skip>[ \t]+|\#[^\n]*)|(?P<end>\n)|(?P<node>%\d+)"
    r"|(?P<float>-?(?:\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+|inf\b|nan\b))"
    r"|(?P<int>\d+)|(?P<name>[A-Za-z_][\w']*|`[^`\n]*`)|(?P<sign>->|<=|[-+*/=<,.:()\[\]{}])"
)
_LONG = {short(dtype): dtype for dtype in (*FLOATS, *INTEGERS)}


@dataclass
class Token:
    """A word, a number, a sign or the end of a line."""

    kind: str
    text: str
    line: int


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TextError(f"line {line}: cannot read {text[position : position + 20]!r}")
        kind = match.lastgroup or ""
        if kind == "end":
            if found and found[-1].kind != "end":
                found.append(Token("end", "the end of the line", line))
            line += 1
        elif kind != "skip":
            found.append(Token(kind, match.group(), line))
        position = match.end()
    found.append(Token("end", "the end of the text", line))
    return found


class Reader:
    """Tokens one after the other, and the errors that name their line."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.tokens = _tokens(text)
        self.position = 0
        while len(self.tokens) > 1 and self.tokens[0].kind == "end":
            del self.tokens[0]

    def dtype(self) -> str:
        """A dtype by its short or long name."""
        name = self.name()
        return _LONG.get(name, name)

    def name(self) -> str:
        """A name."""
        token = self.next()
        if token.kind != "name":
            self.fail(token, "expected a name")
        return token.text.strip("`")

    def integer(self) -> int:
        """A whole number with its sign."""
        sign = -1 if self.skip("-") else 1
        token = self.next()
        if token.kind != "int":
            self.fail(token, "expected a whole number")
        return sign * int(token.text)

    # ---- tokens ----

    def peek(self, ahead: int = 0) -> Token:
        """A coming token."""
        return self.tokens[min(self.position + ahead, len(self.tokens) - 1)]

    def next(self) -> Token:
        """The next token, taken."""
        token = self.peek()
        self.position += 1
        return token

    def at(self, text: str) -> bool:
        """Whether the next token is this text."""
        return self.peek().text == text

    def at_end(self) -> bool:
        """Whether the line ends here."""
        return self.peek().kind == "end"

    def skip(self, text: str) -> bool:
        """Takes this text if it comes next; says whether it did."""
        found = self.at(text)
        self.position += found
        return found

    def take(self, text: str) -> None:
        """Takes this text, which must come next."""
        token = self.next()
        if token.text != text:
            self.fail(token, f"expected {text!r}")

    def end(self) -> None:
        """Takes the end of the line."""
        token = self.next()
        if token.kind != "end":
            self.fail(token, "expected the end of the line")

    def open(self) -> None:
        """Takes `{` and the end of the line."""
        self.take("{")
        self.end()

    def close(self) -> None:
        """Takes `}` and the end of the line."""
        self.take("}")
        self.end()

    def fail(self, token: Token, why: str) -> Never:
        """Raises the error that shows the token's line."""
        line = self.lines[min(token.line, len(self.lines)) - 1].strip()
        raise TextError(f"line {token.line}: {why}, found {token.text!r} in: {line}")
