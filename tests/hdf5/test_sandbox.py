"""The sandbox: no name leads out of the served directory, at whatever moment it changes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgihive.errors import FileError, FileForbidden, FileMissing
from asgihive.hdf5.sandbox import Place, Sandbox, open_place
from tests.efforts import at_most
from tests.hdf5.serving import descriptors


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served directory with links of every kind, and a neighbour of a similar name."""
    root = tmp_path_factory.mktemp("sandbox") / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/f").write_text("inside")
    (root / "f").write_text("inside")
    outside = root.parent / "root2"
    (outside / "pub").mkdir(parents=True)
    (outside / "f").write_text("outside")
    (outside / "pub/f").write_text("linked")
    (root / "inner").symlink_to("a")
    (root / "outer").symlink_to(outside / "pub")
    (root / "out_file").symlink_to(outside / "f")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "broken").symlink_to("nowhere")
    return root


NAMES = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "f",
            "..",
            ".",
            "",
            "inner",
            "outer",
            "out_file",
            "up",
            "loop",
            "broken",
            "root2",
        ]
    )
    | st.text(max_size=3),
    max_size=6,
).map("/".join)


def beneath(path: str, directory: Path) -> bool:
    return Path(path).is_relative_to(directory) and Path(path) != directory


@settings(max_examples=at_most(400), deadline=None)
@given(NAMES)
def test_a_place_lies_inside(tree: Path, name: str) -> None:
    try:
        place = Sandbox(tree).place(name)
    except FileMissing:
        return
    assert place.name == name
    assert beneath(place.real, tree)
    assert beneath(place.asked, tree)
    assert os.path.realpath(place.asked) == place.real == os.path.realpath(place.real)


@settings(max_examples=at_most(400), deadline=None)
@given(NAMES)
def test_followed_links_lead_to_their_targets_alone(tree: Path, name: str) -> None:
    """`..` behind a link does not reach its target's neighbours."""
    try:
        place = Sandbox(tree, follow_symlinks=True).place(name)
        with os.fdopen(open_place(place)) as file:
            content = file.read()
    except FileError:
        return
    assert beneath(place.asked, tree)
    # Links lead to all that these tests write but this, which lies above a link's target.
    if content == "outside":
        passed = os.path.relpath(place.asked, tree).split("/")
        assert {"out_file", "up"} & set(passed)


@pytest.mark.parametrize("name", ["outer/../f", "a/../outer/../f", "outer/../inner/../f"])
def test_dots_take_back_the_name_before_them(tree: Path, name: str) -> None:
    for follow_symlinks in (False, True):
        place = Sandbox(tree, follow_symlinks=follow_symlinks).place(name)
        assert place.asked == place.real == str(tree / "f")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "/", "..", "../root/f", "a/../../root/f", "/../f", "/etc/passwd", "//", "a/.."),
        *("a\0f", "\udcff\ud800", "a" * 5000, "loop", "broken", "f/x"),
        *("outer/f", "out_file", "up/root/../root2/f"),
    ],
)
def test_refused_names(tree: Path, name: str) -> None:
    with pytest.raises(FileMissing):
        os.close(open_place(Sandbox(tree).place(name)))


@pytest.mark.parametrize(
    "name", ["f", "./f", "a//f", "a/../f", "inner/f", "inner/../f", "up/root/f"]
)
def test_accepted_names(tree: Path, name: str) -> None:
    descriptor = open_place(Sandbox(tree).place(name))
    assert os.read(descriptor, 10) == b"inside"
    os.close(descriptor)


def test_what_a_sandbox_is_made_of(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Sandbox(tree / "absent")
    with pytest.raises(NotADirectoryError):
        Sandbox(tree / "f")
    assert Sandbox(tree / "inner").root == str(tree / "a")
    assert Sandbox("/").place("etc").real == "/etc"


def candidates(tree: Path, origin: str, target: str, **policy: bool) -> list[str]:
    sandbox = Sandbox(tree, **policy)
    places = sandbox.linked(sandbox.place(origin), target)
    return [os.path.relpath(place.real, tree) for place in places]


@pytest.mark.parametrize(
    ("origin", "target", "found"),
    [
        ("f", "a/f", ["a/f"]),
        ("a/f", "f", ["a/f"]),
        ("a/f", "../f", ["f"]),
        ("inner/f", "f", ["a/f", "a/f"]),
        ("inner/f", "../a/b/x", ["a/b/x"]),
        ("f", "../root2/f", []),
        ("f", "/etc/passwd", ["passwd"]),
        ("a/f", "/elsewhere/f", ["a/f"]),
        ("f", "outer/f", []),
        ("f", "", []),
        ("f", "a\0", []),
        ("f", "x\ud800", []),
    ],
)
def test_where_stored_names_lead(tree: Path, origin: str, target: str, found: list[str]) -> None:
    assert candidates(tree, origin, target) == found


def test_an_absolute_stored_name_inside(tree: Path) -> None:
    assert candidates(tree, "f", str(tree / "a/f"))[0] == "a/f"
    assert candidates(tree, "f", "outer/f", follow_symlinks=True) == ["../root2/pub/f"]
    assert candidates(tree, "outer/f", "../f", follow_symlinks=True) == ["f"]


@settings(max_examples=at_most(300), deadline=None)
@given(NAMES, st.sampled_from(["f", "a/f", "inner/f"]))
def test_stored_names_lead_nowhere_else(tree: Path, target: str, origin: str) -> None:
    sandbox = Sandbox(tree)
    for place in sandbox.linked(sandbox.place(origin), target):
        assert beneath(place.real, tree)
        assert os.path.realpath(place.real) == place.real


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def replaced_by_link(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


def test_a_directory_replaced_by_a_link_leads_nowhere(root: Path) -> None:
    (root / "sub").mkdir()
    (root / "sub/f").write_text("inside")
    (root.parent / "outside/f").write_text("outside")
    place = Sandbox(root).place("sub/f")
    replaced_by_link(root / "sub", root.parent / "outside")
    with no_descriptor_left(), pytest.raises(FileMissing):
        open_place(place)


def test_a_file_replaced_by_a_link_leads_nowhere(root: Path) -> None:
    (root / "f").write_text("inside")
    (root.parent / "outside/f").write_text("outside")
    place = Sandbox(root).place("f")
    replaced_by_link(root / "f", root.parent / "outside/f")
    with no_descriptor_left(), pytest.raises(FileMissing):
        open_place(place)


def test_what_is_no_regular_file(root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        # The address of a socket may take 108 bytes only.
        here = os.open(root, os.O_PATH)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        with no_descriptor_left():
            for name in ("fifo", "directory", "socket"):
                with pytest.raises(FileMissing):  # and it does not wait
                    open_place(Sandbox(root).place(name))
            with pytest.raises(FileMissing):
                open_place(Place("null", "/dev/null", "/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(root: Path) -> None:
    (root / "f").touch(mode=0)
    with no_descriptor_left(), pytest.raises(FileForbidden):
        open_place(Sandbox(root).place("f"))


def test_refusals_of_the_system_are_translated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "f").touch()
    place = Sandbox(root).place("f")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileForbidden, match="Permission denied"):
        open_place(place)
