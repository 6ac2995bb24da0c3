"""Damaged copies of a file: the same seed, the same damage."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.checksums import SIGNATURE, Structure, checked, repair

# Where the places are that a damage to one structure hits.
_NEAR = 160

# What bounds are forgotten at.
_BOUNDARIES = (0, 1, 2, 7, 8, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)

_MOST_DAMAGES = 4
_REPAIRED = 0.8


@dataclass(frozen=True, slots=True)
class Source:
    """A sound file, and what is known of it.

    anchors: where its structures begin: signatures, and what an address leads to.
    stays_in_place: whether damages let nothing come or go, so that all else is found.
    """

    name: str
    content: bytes
    anchors: tuple[int, ...] = field(repr=False)
    structures: tuple[Structure, ...] = field(repr=False)
    stays_in_place: bool = False


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged copy; `damages` says what was done to it."""

    seed: int
    source: str
    damages: tuple[str, ...]
    content: bytes = field(repr=False)


def source(name: str, content: bytes, anchors: tuple[int, ...] = ()) -> Source:
    """What is known of a sound file.

    Args:
        anchors: where it is to be damaged; where its structures begin, if that is nowhere.
    """
    if anchors:
        return Source(name, content, anchors, (), stays_in_place=True)
    signatures = {found.start() for found in SIGNATURE.finditer(content)}
    anchors = tuple(sorted(signatures | set(_headers(content))) or [0])
    return Source(name, content, anchors, tuple(checked(content)))


def _headers(content: bytes) -> list[int]:
    """Object headers of version 1, which have no signature: what looks like an address of one."""
    found = []
    for at in range(0, len(content) - 7, 8):
        address = int.from_bytes(content[at : at + 8], "little")
        if 0 < address < len(content) - 16 and content[address : address + 2] == b"\1\0":
            found.append(address)
    return found


def mutate(source: Source, seed: int) -> Mutant:
    """The damaged copy of this seed."""
    chance = random.Random(f"{source.name} {seed}")
    content, damages = bytearray(source.content), []
    is_repaired = chance.random() < _REPAIRED
    possible = dict(_DAMAGES)
    if source.stays_in_place:
        possible = {each: often for each, often in possible.items() if each in _IN_PLACE}
    for _ in range(chance.randint(1, _MOST_DAMAGES)):
        [damage] = chance.choices(list(possible), list(possible.values()))
        place = _place(source, len(content), chance)
        damages.append(f"{damage.__name__.strip('_')} at {place}")
        damage(content, place, chance)
        # Behind bytes that came or went, nothing is where it was.
        if is_repaired and len(content) == len(source.content):
            repair(
                content,
                [each for each in source.structures if each.differs(content, source.content)],
            )
    if is_repaired:
        damages.append("checksums repaired")
    return Mutant(seed, source.name, tuple(damages), bytes(content))


def _place(source: Source, size: int, chance: random.Random) -> int:
    """Mostly in or near a structure: elsewhere there are values, and nothing at all."""
    if chance.random() < 0.15:
        return chance.randrange(max(1, size))
    place = chance.choice(source.anchors) + chance.randrange(_NEAR)
    return min(place, max(0, size - 1))


def _flip(content: bytearray, place: int, chance: random.Random) -> None:
    for at in range(place, min(len(content), place + chance.choice((1, 1, 1, 2, 4)))):
        content[at] ^= 1 << chance.randrange(8)


def _overwrite(content: bytearray, place: int, chance: random.Random) -> None:
    for at in range(place, min(len(content), place + chance.randint(1, 16))):
        content[at] = chance.randrange(256)


def _set_field(content: bytearray, place: int, chance: random.Random) -> None:
    """A size, a number or an address to one that is too large, too small or elsewhere."""
    width = chance.choice((1, 2, 4, 8, 8))
    place -= place % width
    if place + width > len(content):
        return
    before = int.from_bytes(content[place : place + width], "little")
    values = (
        *_BOUNDARIES,
        *(
            before - 1,
            before + 1,
            before * 2,
            before // 2,
            len(content),
            len(content) - width,
            place,
        ),
    )
    value = chance.choice(values) % (1 << 8 * width)
    content[place : place + width] = value.to_bytes(width, "little")


def _swap_fields(content: bytearray, place: int, chance: random.Random) -> None:
    """Two neighbouring sizes or addresses of a header or of an index."""
    width = chance.choice((2, 4, 8, 8))
    one = place - place % width
    other = one + width * chance.randint(1, 6)
    if other + width <= len(content):
        first, second = content[one : one + width], content[other : other + width]
        content[one : one + width], content[other : other + width] = second, first


def _copy_address(content: bytearray, place: int, chance: random.Random) -> None:
    """Lets what leads somewhere lead back to where it is, or to a place before it."""
    place -= place % 8
    if place + 8 <= len(content):
        back = max(0, place - 8 * chance.randrange(64))
        content[place : place + 8] = struct.pack("<Q", back)


def _copy_range(content: bytearray, place: int, chance: random.Random) -> None:
    """Over another place."""
    length = min(chance.choice((8, 16, 40, 128, 512)), len(content) - place)
    to = chance.randrange(max(1, len(content) - length))
    content[to : to + length] = content[place : place + length]


def _insert_range(content: bytearray, place: int, chance: random.Random) -> None:
    """Twice, so that all behind it is elsewhere."""
    length = chance.choice((1, 8, 40, 512))
    content[place:place] = content[place : place + length]


def _remove_range(content: bytearray, place: int, chance: random.Random) -> None:
    del content[place : place + chance.choice((1, 8, 40, 512))]


def _cut(content: bytearray, place: int, chance: random.Random) -> None:
    del content[chance.choice((place, len(content) - 1, len(content) // 2)) :]


_Damage = Callable[[bytearray, int, random.Random], None]

# How often each, beside the others.
_DAMAGES: dict[_Damage, int] = {
    _flip: 6,
    _overwrite: 3,
    _set_field: 8,
    _swap_fields: 4,
    _copy_address: 3,
    _copy_range: 2,
    _insert_range: 1,
    _remove_range: 1,
    _cut: 1,
}


_IN_PLACE = {_flip, _overwrite, _set_field, _swap_fields, _copy_range}


def mutant(sources: list[Source], seed: int, *, sound_first: bool = False) -> Mutant:
    """By seed, of the sources in turn; the first of each is sound with `sound_first`."""
    source = sources[seed % len(sources)]
    if sound_first and seed < len(sources):
        return Mutant(seed, source.name, ("nothing",), source.content)
    return mutate(source, seed)
