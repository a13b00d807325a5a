"""Seeded damage to the bytes of a file: what a disk, a copy or an attacker can do to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Spans = Sequence[tuple[int, int]]
"""Places (start, stop) of a file where its structure lies, as opposed to its pixels or weights."""

_LONGEST = 512
_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**40, 2**63 - 1)


def damaged(content: bytes, random: Random, spans: Spans = (), foreign: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """Return other bytes than `content`, and what was done to them.

    Args:
        content: of the sound file.
        random: decides everything.
        spans: three quarters of the positions are drawn from them.
        foreign: contents of files of other formats, one of which may take this one's place.
    """
    data = bytearray(content)
    steps = []
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        steps.append(random.choice(_KINDS)(data, random, spans))
    if foreign and random.random() < 0.02:
        data[:] = random.choice(foreign)
        steps = ["another format's file"]
    if bytes(data) == content:
        data[len(data) // 2 :] = b""
        steps = [f"cut to {len(data)} bytes"]
    return bytes(data), "; ".join(steps)


def _place(data: bytearray, random: Random, spans: Spans) -> int:
    """Return a position; of an empty file 0."""
    if spans and random.random() < 0.75:
        start, stop = random.choice(spans)
        return min(random.randrange(start, max(stop, start + 1)), max(len(data) - 1, 0))
    return random.randrange(max(len(data), 1))


def _range(data: bytearray, random: Random, spans: Spans) -> tuple[int, int]:
    start = _place(data, random, spans)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 16, random.randint(1, _LONGEST), 4096)))


def _flip(data: bytearray, random: Random, spans: Spans) -> str:
    flipped = []
    for _ in range(random.randint(1, 4)):
        place, bit = _place(data, random, spans), random.randrange(8)
        if place < len(data):
            data[place] ^= 1 << bit
            flipped.append(f"{place}.{bit}")
    return f"bits {', '.join(flipped)} flipped"


def _byte(data: bytearray, random: Random, spans: Spans) -> str:
    place, value = _place(data, random, spans), random.randrange(256)
    data[place : place + 1] = bytes([value])
    return f"byte {place} set to {value}"


def _number(data: bytearray, random: Random, spans: Spans) -> str:
    """Set a field of 1 to 8 bytes to a number that readers stumble over, or to one near what it was."""
    width = random.choice((1, 2, 4, 8))
    place = _place(data, random, spans) // random.choice((1, width)) * random.choice((1, 1))
    old = int.from_bytes(data[place : place + width], "little")
    value = random.choice((*_NUMBERS, old + 1, old - 1, old * 2, old + 8, random.getrandbits(width * 8)))
    order = random.choice(("little", "little", "big"))
    data[place : place + width] = (value % (1 << 8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return f"{width} bytes at {place} set to {value} ({order}-endian)"


def _noise(data: bytearray, random: Random, spans: Spans) -> str:
    start, stop = _range(data, random, spans)
    data[start:stop] = random.randbytes(stop - start)
    return f"bytes {start}..{stop} random"


def _zero(data: bytearray, random: Random, spans: Spans) -> str:
    start, stop = _range(data, random, spans)
    data[start:stop] = bytes(stop - start)
    return f"bytes {start}..{stop} zeroed"


def _copy(data: bytearray, random: Random, spans: Spans) -> str:
    """Write a range over another place, as a misdirected write does; often whole pages."""
    if random.random() < 0.4 and len(data) > 8192:
        pages = len(data) // 4096
        source, target = 4096 * random.randrange(pages), 4096 * random.randrange(pages)
        length = 4096
    else:
        source, stop = _range(data, random, spans)
        target, length = _place(data, random, spans), stop - source
    data[target : target + length] = data[source : source + length]
    return f"{length} bytes at {source} written to {target} too"


def _swap(data: bytearray, random: Random, spans: Spans) -> str:
    (one, end), other = _range(data, random, spans), _place(data, random, spans)
    length = min(end - one, abs(other - one), len(data) - other)
    data[one : one + length], data[other : other + length] = data[other : other + length], data[one : one + length]
    return f"{length} bytes at {one} and {other} swapped"


def _insert(data: bytearray, random: Random, spans: Spans) -> str:
    """Duplicate a range, so that everything behind it shifts."""
    start, stop = _range(data, random, spans)
    data[start:start] = data[start:stop]
    return f"bytes {start}..{stop} doubled"


def _delete(data: bytearray, random: Random, spans: Spans) -> str:
    start, stop = _range(data, random, spans)
    del data[start:stop]
    return f"bytes {start}..{stop} removed"


def _cut(data: bytearray, random: Random, spans: Spans) -> str:
    length = random.choice((0, _place(data, random, spans), len(data) // 4096 * 2048, len(data) - 1))
    del data[max(length, 0) :]
    return f"cut to {len(data)} bytes"


def _append(data: bytearray, random: Random, spans: Spans) -> str:
    more = random.choice((bytes(4096), random.randbytes(random.randint(1, 64)), bytes(data[:4096])))
    data += more
    return f"{len(more)} bytes appended"


_KINDS: tuple[Callable[[bytearray, Random, Spans], str], ...] = (
    _flip, _flip, _byte, _number, _number, _number, _noise, _zero, _copy, _swap, _insert, _delete, _cut, _append,
)  # fmt: skip
