"""Names that clients see."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.hdf5.file_bytes import text
from asgihive.zarr.names import needs_replacement, publish_in_portions, publish_names
from tests.efforts import at_most

ODD = st.text(alphabet="ab_#?%\\:.@\n", min_size=1, max_size=4).map(str.encode)
ANY = st.binary(min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("real", "published"),
    [
        ("a#1", "a_1"),
        ("a?b%c\\d:e", "a_b_c_d_e"),
        ("..", "__"),
        ("...", "___"),
        ("a.b", "a.b"),
        ("..a", "..a"),
        ("zarr.json", "zarr_json"),
        ("@0123", "_0123"),
        ("a@0", "a@0"),
        ("tab\there", "tab_here"),
        (b"caf\xe9", "caf_"),
        ("ä b+c&d[e];f", "ä b+c&d[e];f"),
        ("__x", "__x"),
        ("c", "c"),
        (".zgroup", ".zgroup"),
    ],
)
def test_what_a_client_would_not_ask_for_is_replaced(real: str | bytes, published: str) -> None:
    stored = real if isinstance(real, bytes) else real.encode()
    assert publish_names([stored]) == {stored: published}


def test_a_real_name_keeps_its_name_before_a_replaced_one() -> None:
    names = [b"a#", b"a?", b"a_", b"a__"]
    assert publish_names(names) == {b"a_": "a_", b"a__": "a__", b"a#": "a__2", b"a?": "a__3"}


def test_what_no_path_can_name_is_left_out() -> None:
    assert publish_names([b"", b".", b"a/b", b"a"]) == {b"a": "a"}


def test_many_names_are_published_in_portions() -> None:
    names = [b"%d#" % number for number in range(20_000)]
    assert sum(1 for _ in publish_in_portions(names)) >= 8


@settings(max_examples=at_most(300))
@given(st.sets(ODD | ANY, max_size=20))
def test_names_are_unique_and_lead_back(names: set[bytes]) -> None:
    published = publish_names(names)
    assert published == publish_names(sorted(names, reverse=True))
    assert len(set(published.values())) == len(published)
    for real, shown in published.items():
        assert not needs_replacement(shown)
        assert "/" not in shown
        assert shown not in {"", ".", "..", "zarr.json"}
        if not needs_replacement(text(real)):
            assert shown == real.decode()
    lost = names - published.keys()
    assert all(not each or each == b"." or b"/" in each for each in lost)
