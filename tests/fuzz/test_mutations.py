"""Damage is the same for the same seed, and hits what it is meant to hit."""

from pathlib import Path

import pytest

from tests import zoo
from tests.fuzz.checksums import checked, lookup3, repair
from tests.fuzz.mutations import Source, mutate, source

CHECKED = ("latest.h5", "v108.h5", "paged.h5")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("fuzz")
    zoo.build(root)
    return root


@pytest.fixture(scope="module", params=[*CHECKED, "layouts.h5"])
def sound(root: Path, request: pytest.FixtureRequest) -> Source:
    return source(request.param, (root / request.param).read_bytes())


def test_checksums_are_those_of_lookup3() -> None:
    """The values are those that lookup3.c prints for them (`driver5`)."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_the_structures_of_newer_files_are_found(root: Path) -> None:
    for name in CHECKED:
        content = (root / name).read_bytes()
        found = {content[each.start : each.start + 4] for each in checked(content)}
        assert {b"OHDR", b"\x89HDF"} <= found, name
    content = (root / "latest.h5").read_bytes()
    found = {content[each.start : each.start + 4] for each in checked(content)}
    assert found >= {b"FRHP", b"BTHD", b"BTLF", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EADB"}


def test_a_repair_changes_only_what_is_wrong(root: Path) -> None:
    sound = (root / "latest.h5").read_bytes()
    structures = checked(sound)
    content = bytearray(sound)
    repair(content, structures)
    assert content == sound
    for each in structures:
        content = bytearray(sound)
        content[each.stop - 1] ^= 1
        assert lookup3(content[each.start : each.stop]) != lookup3(sound[each.start : each.stop])
        repair(content, [each])
        stored = int.from_bytes(content[each.stop : each.stop + 4], "little")
        assert stored == lookup3(content[each.start : each.stop])
        assert content[each.stop + 4 :] == sound[each.stop + 4 :]


def test_the_same_seed_does_the_same_damage(sound: Source) -> None:
    mutants = [mutate(sound, seed) for seed in range(100)]
    assert mutants == [mutate(sound, seed) for seed in range(100)]
    contents = {each.content for each in mutants}
    # Some fields have the value already that they are set to.
    assert len(contents) > 65
    assert sum(each.content != sound.content for each in mutants) > 80


def test_every_kind_of_damage_is_done(sound: Source) -> None:
    done = {
        damage.partition(" at ")[0] for seed in range(300) for damage in mutate(sound, seed).damages
    }
    assert done == {
        *("flip", "overwrite", "set_field", "swap_fields", "copy_address"),
        *("copy_range", "insert_range", "remove_range", "cut", "checksums repaired"),
    }


def test_files_of_no_and_few_bytes_can_be_damaged() -> None:
    for content in (b"", b"\0", b"\x89HDF\r\n\x1a\n"):
        for seed in range(200):
            mutate(source("tiny", content), seed)
