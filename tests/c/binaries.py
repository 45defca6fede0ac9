"""What a file linked for macOS or Windows says: its CPU and release, what it needs and exports."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

MACH_O, ARM64, X86_64 = 0xFEEDFACF, 0x0100000C, 0x01000007
SYMTAB, LOAD_DYLIB, OLD_MINIMUM, BUILD_VERSION = 0x2, 0xC, 0x24, 0x32
EXTERNAL, UNDEFINED, TYPE, PRIVATE, STAB = 0x01, 0x0, 0x0E, 0x10, 0xE0


@dataclass
class Binary:
    """What the header of a file says."""

    cpu: str
    minimum: str = ""
    libraries: list[str] = field(default_factory=list)
    exports: set[str] = field(default_factory=set)


def text_at(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()


def mach_o(data: bytes) -> Binary:
    """Read the load commands of a 64-bit file for macOS (Apple, <mach-o/loader.h>)."""
    magic, cpu, _, _, commands = struct.unpack_from("<5I", data)
    if magic != MACH_O:
        raise SystemExit(f"cdrop: the file begins with {magic:#x}; expected a 64-bit Mach-O file")
    binary = Binary({ARM64: "arm64", X86_64: "x86_64"}[cpu])
    at = 32
    for _ in range(commands):
        command, size, *words = struct.unpack_from("<6I", data, at)
        if command in (OLD_MINIMUM, BUILD_VERSION):
            version = words[command == BUILD_VERSION]
            binary.minimum = f"{version >> 16}.{version >> 8 & 255}"
        elif command == LOAD_DYLIB:
            binary.libraries.append(text_at(data, at + words[0]))
        elif command == SYMTAB:
            symbols, count, strings, _ = words
            for i in range(count):
                name, kind, _, _, _ = struct.unpack_from("<IBBHQ", data, symbols + 16 * i)
                symbol = text_at(data, strings + name).removeprefix("_")
                hidden = kind & (STAB | PRIVATE) or kind & TYPE == UNDEFINED
                if kind & EXTERNAL and not hidden and not symbol.startswith("_"):  # the linker's
                    binary.exports.add(symbol)
        at += size
    return binary


def portable_executable(data: bytes) -> Binary:
    """Read the directories of a 64-bit file for Windows (Microsoft, PE Format)."""
    (header,) = struct.unpack_from("<I", data, 0x3C)
    machine, sections = struct.unpack_from("<HH", data, header + 4)
    (optional,) = struct.unpack_from("<H", data, header + 20)
    table = [
        struct.unpack_from("<4I", data, header + 24 + optional + 40 * i + 8)
        for i in range(sections)
    ]

    def offset(address: int) -> int:
        return next(raw + address - to for room, to, _, raw in table if to <= address < to + room)

    exports, _, imports = struct.unpack_from("<3I", data, header + 24 + 112)
    binary = Binary({0x8664: "x86_64", 0xAA64: "arm64"}[machine])
    if exports:
        count, _, names = struct.unpack_from("<3I", data, offset(exports) + 24)
        for (name,) in struct.iter_unpack("<I", data[offset(names) :][: 4 * count]):
            binary.exports.add(text_at(data, offset(name)))
    at = offset(imports)
    while name := struct.unpack_from("<5I", data, at)[3]:
        binary.libraries.append(text_at(data, offset(name)).lower())
        at += 20
    return binary


def main(cpu: str, minimum: str, path: str) -> None:
    """Say what the file is; fail unless it is for the CPU and release, and needs the system's C library alone."""
    binary = mach_o(Path(path).read_bytes())
    print(
        f"linked for {binary.cpu}, macOS {binary.minimum}, with {', '.join(binary.libraries)}; not run"
    )
    wanted = Binary(cpu, minimum, ["/usr/lib/libSystem.B.dylib"])
    if (binary.cpu, binary.minimum, binary.libraries) != (wanted.cpu, minimum, wanted.libraries):
        raise SystemExit(f"cdrop: {path}: expected {cpu}, macOS {minimum}, and the C library alone")


if __name__ == "__main__":
    main(*sys.argv[1:])
