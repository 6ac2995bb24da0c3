"""The tree of `asgihive inspect FILE`: what is in it, what bounds it, and what a terminal gets."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.cli import main
from asgihive.cli.tree import format_value
from asgihive.hdf5.contents import MAX_ATTRIBUTES, MAX_DEPTH
from tests import zoo
from tests.cli.processes import complaint
from tests.zoo import awkward

Output = pytest.CaptureFixture[str]
Show = Callable[..., str]

pytestmark = pytest.mark.usefixtures("no_terminal")

_GUIDES = re.compile(r"^[│├└─ ]*")


@pytest.fixture
def show(capsys: Output) -> Show:
    def show_files(*arguments: str | Path) -> str:
        assert main(["inspect", *map(str, arguments)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        text: str = captured.out
        return text

    return show_files


def names_in(text: str) -> list[str]:
    """The first words of the rows below the head, without attributes."""
    rows = [_GUIDES.sub("", line) for line in text.splitlines()[1:]]
    return [row.split()[0].rstrip("/") for row in rows if not row.startswith(("@", "…"))]


def test_the_tree_of_a_file(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        data = entry.create_dataset("data", (4, 8), "u2", chunks=(2, 8), compression="gzip")
        data.attrs["units"] = "counts"
        data.attrs["offsets"] = np.arange(9.0)
        data.attrs["nothing"] = h5py.Empty("f4")
        entry["temperature"] = 293.15
        entry["title"] = ["née"]
        entry["wave"] = np.zeros(3, "c8")
        entry["empty"] = h5py.Empty("f4")
        entry["lost"] = h5py.SoftLink("/no/such")
        entry["other"] = h5py.ExternalLink("x.h5", "/values")
        entry["soft"] = h5py.SoftLink("/entry/data")
        file["z"] = np.dtype("i4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"] = np.arange(5)
    assert (
        show(path)
        == f"""\
/ of {path}
│  @default = "entry"
├─ entry/  NXentry
│  ├─ data  4 x 8 uint16  deflate of 2 x 8
│  │     @nothing  float32, without values
│  │     @offsets = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, …] (9)
│  │     @units = "counts"
│  ├─ empty  float32, without values
│  ├─ lost -> /no/such, does not resolve: there is no 'no' in its target
│  ├─ other -> x.h5:/values  5 int64
│  ├─ soft -> /entry/data  4 x 8 uint16  deflate of 2 x 8
│  ├─ temperature  float64 = 293.15
│  ├─ title  1 string (variable) = "née"
│  └─ wave  3 complex64
└─ z  datatype int32
"""
    )
    below = show(path, "/entry")
    assert below.startswith(f"/entry of {path}  NXentry\n├─ data")
    assert show(path, "/entry/data").splitlines()[1].split() == ["kind", "dataset"]


def test_a_group_behind_a_link(tmp_path: Path, show: Show) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["far"] = h5py.ExternalLink("y.h5", "/group")
        file["near"] = h5py.SoftLink("far")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["group/sub/value"] = 7
        file["group/back"] = h5py.ExternalLink("x.h5", "/")
    for path, target in (("/far", "y.h5:/group"), ("/near", "far")):
        assert show(tmp_path / "x.h5", path).splitlines() == [
            f"{path} of {tmp_path / 'x.h5'} -> {target}",
            "├─ back/ -> x.h5:/",
            "└─ sub/",
            "   └─ value  int64 = 7",
        ]


def test_the_rows_are_those_that_h5py_visits(tmp_path: Path, show: Show) -> None:
    path, visited = tmp_path / "x.h5", []
    random = np.random.default_rng(14)
    with h5py.File(path, "w") as file:
        groups = [file]
        for number in range(40):
            parent = groups[random.integers(len(groups))]
            if random.random() < 0.5:
                groups.append(parent.create_group(f"g{number}"))
            else:
                parent[f"d{number}"] = number
        file.visit(lambda name: visited.append(name.rpartition("/")[2]))
    assert names_in(show(path, "--all")) == visited


def test_what_is_near_the_top_is_shown_first(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for number in range(500):
            file[f"a/{number:03}"] = number
        file["b/c/d"] = 1
    text = show(path, "--rows", "20")
    assert names_in(text) == ["a", *(f"{each:03}" for each in range(10)), "b", "c", "d"]
    assert "│  └─ … 490 more members" in text
    shallow = show(path, "--depth", "1").splitlines()
    assert shallow[1:] == ["├─ a/", "│  └─ … 500 members", "└─ b/", "   └─ … 1 member"]
    assert len(names_in(show(path, "--all"))) == 504


def test_attributes_count_as_rows_and_are_bounded_themselves(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
        for number in range(100):
            file["x"].attrs[f"a{number:03}"] = "x" * 1000
        file["x"].attrs["large"] = np.zeros(8000)
    lines = show(path, "--all").splitlines()
    assert lines[-1].endswith(f"@… {101 - MAX_ATTRIBUTES} more attributes")
    assert max(map(len, lines)) < 120
    assert len(show(path, "--rows", "5").splitlines()) == 7


def test_a_group_in_itself_is_entered_once(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = file
        file["c"] = file.create_group("a/d")
    assert show(path, "--all").splitlines()[1:] == [
        "├─ a/",
        "│  ├─ b/ = /, see there",
        "│  └─ d/ = /c, see there",
        "└─ c/",
    ]


def test_however_deep_a_file_is(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_group("/".join(["g"] * 3000))
    lines = show(path, "--all").splitlines()
    assert len(lines) == MAX_DEPTH + 2
    assert lines[-1].endswith("… 1 member")


def test_nothing_in_a_file_does_anything_to_a_terminal(tmp_path: Path, show: Show) -> None:
    evil, path = "\x1b[31m\r\n\x07\u202e", tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group(evil)
        group.attrs["NX_class"] = evil
        group.attrs[evil] = evil
        group["x" * 10_000] = evil
        group["void"] = np.void(evil.encode())
        file["soft"] = h5py.SoftLink(evil)
        file["external"] = h5py.ExternalLink(evil, evil)
        file["compound"] = np.zeros(1, [(evil.replace("\r", ""), "i4")])
    text = show(path)
    assert all(each.isprintable() for each in text.splitlines())
    assert text.count(r"\x1b[31m\r\n\x07\u202e") == 9
    assert max(map(len, text.splitlines())) < 300


def test_a_damaged_object_hides_no_other(tmp_path: Path, show: Show) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["bad"] = np.arange(3)
        file["good"] = np.arange(4)
        address = h5py.h5o.get_info(file["bad"].id).addr
    content = bytearray(path.read_bytes())
    content[address + 8 : address + 24] = b"\xff" * 16
    path.write_bytes(content)
    lines = show(path).splitlines()
    assert lines[1].startswith("├─ bad  (")
    assert lines[2] == "└─ good  4 int64"


def test_lines_fit_a_terminal(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["日本" * 40] = 1
        file["n" * 50] = 1
    _, first, second = show(path).splitlines()
    assert first.endswith("…")
    assert len(second) < 40
    assert len(first) == 40


@pytest.mark.slow
def test_every_file_of_the_zoo(tmp_path: Path, show: Show) -> None:
    zoo.build(tmp_path)
    for name in (*zoo.FILES, awkward.FILE):
        path = tmp_path / name
        lines = show(path, "--all").splitlines()
        assert all(each.isprintable() for each in lines), name
        with h5py.File(path) as file:
            assert len(names_in("\n".join(lines))) >= len(file), name


class Terminal:
    """Standard output that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        """Everything is there already."""


@pytest.mark.parametrize(("no_colour", "is_coloured"), [("", True), ("1", False)])
def test_colours_are_for_terminals(
    no_colour: str, is_coloured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, terminal = tmp_path / "x.h5", Terminal()
    with h5py.File(path, "w") as file:
        file["a\x1b[0m/[red]b"] = 1
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["inspect", str(path)]) == 0
    assert ("\x1b[" in terminal.written) is is_coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.written)
    assert plain == f"/ of {path}\n└─ a\\x1b[0m/\n   └─ [red]b  int64 = 1\n"


@pytest.mark.parametrize("option", ["--rows", "--depth"])
@pytest.mark.parametrize("number", ["0", "-1", "1.5", "٣", "9999999999"])
def test_a_bad_number_is_told(option: str, number: str, tmp_path: Path, capsys: Output) -> None:
    h5py.File(tmp_path / "x.h5", "w").close()
    line = complaint(capsys, ["inspect", str(tmp_path / "x.h5"), f"{option}={number}"])
    assert "a number from 1 to 1,000,000 is accepted" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"caf\xc3\xa9\x00", '"café\\x00"'),
        (np.bool_(True), "true"),
        (np.float32(0.1), "0.1"),
        (np.array(3), "3"),
        (np.array([[1, 2], [3, 4]]), "[1, 2, 3, 4] (2 x 2)"),
        (np.array([b"a", b"b"], "O"), '["a", "b"]'),
        (np.zeros(0), "[]"),
        (np.void(b"\x01"), "b'\\x01'"),
        (h5py.Reference(), "a reference"),
    ],
)
def test_values_for_people(value: object, text: str) -> None:
    assert format_value(value) == text
