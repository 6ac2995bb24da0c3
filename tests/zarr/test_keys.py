"""The keys of a Zarr v3 store: which URL asks for what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.zarr.keys import MOST_COORDINATES, PROBES, KeyKind, parse_key, take_version
from tests.efforts import at_most


def parse(text: str) -> tuple[KeyKind, str, tuple[int, ...]]:
    key = parse_key(tuple(text.split("/")))
    return key.kind, "/".join(key.node), key.coordinates


@pytest.mark.parametrize(
    ("text", "node", "coordinates"),
    [
        ("t/c/0", "t", (0,)),
        ("a/b/c/0/12/3", "a/b", (0, 12, 3)),
        ("scalar/c", "scalar", ()),
        ("c", "", ()),
        ("c/0", "", (0,)),
        ("c/c/0", "c", (0,)),
        ("c/c", "c", ()),
        ("a/c/1/c/0/1", "a/c/1", (0, 1)),
        ("a/c/0/c", "a/c/0", ()),
        ("7/c/7", "7", (7,)),
        ("zarr.json/c/0", "zarr.json", (0,)),
        ("t/c/9223372036854775807", "t", (2**63 - 1,)),
        ("t/c/" + "/".join("0" * MOST_COORDINATES), "t", (0,) * MOST_COORDINATES),
    ],
)
def test_chunks(text: str, node: str, coordinates: tuple[int, ...]) -> None:
    assert parse(text) == (KeyKind.CHUNK, node, coordinates)


@pytest.mark.parametrize(
    "text",
    [
        *("", "t", "t/", "t/c/", "t/c/0/", "t/c//0", "c/", "0", "0/1", "t/0/1", "t/0.1", "t/c0"),
        *("t/c/-1", "t/c/+1", "t/c/00", "t/c/01", "t/c/1e3", "t/c/1.0", "t/c/0x1", "t/c/ 1"),
        *("t/c/1 ", "t/c/1_0", "t/c/\u0661", "t/c/\uff11", "t/c/\u00b2", "t/c/1\n", "t/C/0"),
        *("t/c/" + "9" * 20, "t/c/" + "9" * 100_000, "t/c/" + "/".join("0" * 65)),
        *("zarr.json/", "zarr.jso", "Zarr.json", "t/zarr.json/x", "t/c/0/x", "__pycache__"),
    ],
)
def test_what_no_store_has(text: str) -> None:
    assert parse(text)[0] is KeyKind.OTHER


@pytest.mark.parametrize("node", ["", "t", "a/b", "a/c/0", "zarr.json", "a/c"])
def test_metadata_and_probes(node: str) -> None:
    before = f"{node}/" if node else ""
    assert parse(f"{before}zarr.json") == (KeyKind.METADATA, node, ())
    for name in PROBES:
        assert parse(before + name) == (KeyKind.PROBE, node, ())


@given(
    st.lists(st.text(min_size=1).filter(lambda each: "/" not in each), max_size=4),
    st.lists(st.integers(0, 2**63 - 1), max_size=8),
)
@settings(max_examples=at_most(200), deadline=None)
def test_every_chunk_of_every_node_has_one_key(node: list[str], coordinates: list[int]) -> None:
    text = "/".join([*node, "c", *map(str, coordinates)])
    assert parse(text) == (KeyKind.CHUNK, "/".join(node), tuple(coordinates))


def test_versions() -> None:
    version = "0123456789abcdef0123456789abcdef"
    assert take_version((f"@{version}", "t", "c", "0")) == (version, ("t", "c", "0"))
    for other in ("@", f"@{version}0", f"@{version.upper()}", version, f"@{version}\n", "@x"):
        assert take_version((other, "t")) == (None, (other, "t"))
    assert take_version(()) == (None, ())
