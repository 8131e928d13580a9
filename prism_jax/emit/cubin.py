"""What a compiled kernel needs, read from its cubin: registers and stack, without a GPU.

In: the bytes of a cubin (an ELF file) and a kernel's name. Out: its registers per thread and its
stack frame in bytes (register spills and local arrays). The driver reports both only after loading
the kernel on a device; ptxas writes them into the attribute section `.nv.info`, one record per
function: format byte, attribute byte, 16-bit length, then (symbol number, value).
"""

from __future__ import annotations

import dataclasses
import struct

_SYMBOL_TABLE = 2  # section type SHT_SYMTAB
_SIZED_VALUE = 0x04  # the one record format that has a payload
_REGISTERS = 0x2F  # EIATTR_REGCOUNT
_FRAME_SIZE = 0x11  # EIATTR_FRAME_SIZE


@dataclasses.dataclass(frozen=True)
class Resources:
    """Registers per thread, and bytes of stack per thread, of one kernel."""

    registers: int
    stack: int


@dataclasses.dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    link: int
    data: bytes


def resources(cubin: bytes, kernel: str) -> Resources:
    """Registers and stack of `kernel`, which calls nothing (Triton inlines everything).

    Raises:
      ValueError: not a 64-bit ELF file, or it has no such kernel.
    """
    sections = _sections(cubin)
    symbols = _symbols(sections)
    found: dict[int, int] = {}
    for section in sections:
        if section.name == ".nv.info":
            for attribute, symbol, value in _records(section.data):
                if symbols.get(symbol) == kernel:
                    found[attribute] = value
    if _REGISTERS not in found:
        raise ValueError(f"the cubin says nothing about a kernel named {kernel!r}")
    return Resources(found[_REGISTERS], found.get(_FRAME_SIZE, 0))


def _sections(elf: bytes) -> list[_Section]:
    if elf[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 0x28)
        size, count, names_at = struct.unpack_from("<HHH", elf, 0x3A)
        # name, type, flags, address, offset, size, link, information, alignment, entry size
        heads = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * i) for i in range(count)]
        names = elf[heads[names_at][4] :][: heads[names_at][5]]
        no_bits = 8  # SHT_NOBITS: has a size but no bytes in the file
        return [
            _Section(
                names[h[0] : names.index(b"\0", h[0])].decode(),
                h[1],
                h[6],
                b"" if h[1] == no_bits else elf[h[4] : h[4] + h[5]],
            )
            for h in heads
        ]
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"a damaged ELF file: {error}") from None


def _symbols(sections: list[_Section]) -> dict[int, str]:
    symbols: dict[int, str] = {}
    for section in sections:
        if section.kind == _SYMBOL_TABLE:
            names = sections[section.link].data
            for number, (name, *_) in enumerate(struct.iter_unpack("<IBBHQQ", section.data)):
                symbols[number] = names[name : names.index(b"\0", name)].decode()
    return symbols


def _records(data: bytes) -> list[tuple[int, int, int]]:
    """(attribute, symbol, value) of the records whose payload is such a pair."""
    records: list[tuple[int, int, int]] = []
    position = 0
    while position + 4 <= len(data):
        form, attribute, length = struct.unpack_from("<BBH", data, position)
        position += 4
        if form == _SIZED_VALUE:
            if length == 8:
                records.append((attribute, *struct.unpack_from("<II", data, position)))
            position += length
    return records
