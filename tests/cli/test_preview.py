"""`asgihive inspect --preview`: images in blocks, curves in braille, compared with the values."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.cli import main
from tests.cli.processes import complaint
from tests.cli.test_tree import Terminal

Output = pytest.CaptureFixture[str]
Show = Callable[..., list[str]]

pytestmark = pytest.mark.usefixtures("no_terminal")

_CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀")


@pytest.fixture
def show(capsys: Output) -> Show:
    def show_picture(*arguments: str | Path) -> list[str]:
        assert main(["inspect", "--preview", *map(str, arguments)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        lines: list[str] = captured.out.splitlines()
        return lines

    return show_picture


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nxs"
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXdata", "signal": "images"})
        images = np.zeros((3, 40, 80), "u2")
        images[:, 20:, 40:] = 7  # the lower right quarter
        images[2] = 7 - images[2]
        entry["images"] = images
        entry["ramp"] = np.arange(100_000.0)
        entry["few"] = [0.0, 1.0]
        entry["names"] = ["a", "b"]
        entry["none"] = np.full(5, np.nan)
        entry["one"] = 5
    return path


def test_the_default_image_in_shades(
    scan: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")
    title, *lines, caption = show(scan)
    assert title == f"/entry/images: 3 x 40 x 80 uint16 of {scan}"
    assert caption == "[0,0:40,0:80], from 0 (dark) to 7 (light)"
    upper, lower = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert len(upper) == len(lower)
    assert "".join(upper).strip() == ""
    # A pixel is half a character: it is twice as high as wide.
    assert lower == [" " * 40 + "█" * 40] * 10


def test_another_image_of_a_stack(scan: Path, show: Show) -> None:
    first, third = show(scan), show(scan, "--selection", "2,:,:")
    assert third[-1].startswith("[2,0:40,0:80]")
    assert first[1].strip() == ""
    assert third[1] == third[1][0] * len(third[1]) == "█" * len(third[1])


def test_a_curve_goes_from_its_minimum_to_its_maximum(scan: Path, show: Show) -> None:
    title, *lines, caption = show(scan, "/entry/ramp")
    assert title.startswith("/entry/ramp: 100000 float64")
    assert caption == "100000 values, from 0 to 99999"
    assert len(lines) == 10
    begins = [len(line) - len(line.lstrip()) for line in lines]
    ends = [len(line) for line in lines]
    assert begins == sorted(begins, reverse=True)
    assert begins[-1] == 0
    assert max(ends) == ends[0] == 80
    # Each line of a straight one holds a tenth of it.
    assert all(
        end - begin == pytest.approx(8, abs=2) for begin, end in zip(begins, ends, strict=True)
    )


def test_two_values_are_joined(scan: Path, show: Show) -> None:
    _, *lines, _ = show(scan, "/entry/few")
    assert all(line.strip() for line in lines)
    assert lines[0].rstrip()[-1] != " "
    assert lines[-1][0] != " "


def test_a_peak_of_one_element_is_seen(tmp_path: Path, show: Show) -> None:
    values = np.zeros(1_000_000, "i8")
    values[777_777] = 1000
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = values
    _, *lines, caption = show(tmp_path / "x.h5", "/x")
    assert caption.endswith("from 0 to 1000")
    assert lines[0].strip()
    assert len(lines[0]) == pytest.approx(0.7778 * 80, abs=1.5)


@pytest.mark.parametrize("numbers", [[-1.7e308, 1.7e308], [5, 5, 5], [1, np.inf, np.nan, 2]])
def test_extreme_values(numbers: list[float], tmp_path: Path, show: Show) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.array(numbers, "f8")
    _, *lines, _ = show(tmp_path / "x.h5", "/x")
    assert any(line.strip() for line in lines)


def test_colours_are_those_of_the_values(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["inspect", "--preview", str(scan)]) == 0
    rows = [_CELL.findall(line) for line in terminal.written.splitlines()[1:-1]]
    # Of each character the colour in front, then the one behind it.
    cells = np.array(rows, np.uint8).reshape(len(rows), 40, 2, 3)
    assert len(rows) == 10
    upper, lower = cells[:5].reshape(-1, 3), cells[5:]
    # The ends of viridis, as Matplotlib has them.
    assert np.allclose(upper, (68, 1, 84), atol=1)
    assert np.allclose(lower[:, 20:], (253, 231, 36), atol=1)
    assert np.allclose(lower[:, :20], (68, 1, 84), atol=1)


def test_a_terminal_with_letters_alone(
    scan: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii", raising=False)
    for path in ("/entry/images", "/entry/ramp"):
        lines = show(scan, path)
        assert all(line.isascii() for line in lines)
        assert "\\" not in "".join(lines)


def test_several_files(scan: Path, show: Show) -> None:
    lines = show(scan, scan, "/entry/few")
    assert [line.rpartition(" of ")[0] for line in lines if " of " in line] == [
        "/entry/few: 2 float64"
    ] * 2


def test_nothing_to_see(scan: Path, show: Show) -> None:
    assert show(scan, "/entry/none")[-1] == "there is no finite value"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["/entry/names"], "an array of real numbers", 1),
        (["/entry/one"], "a dataset of one element, int64, but an array of real numbers", 1),
        (["/nothing"], "/nothing is not a valid path", 1),
        (["/entry/few", "--selection", "x"], "`x` is neither", 1),
        (["/entry/images", "--selection", "0,0,0"], "dimensions", 1),
        (["--json"], "without --json", 2),
    ],
)
def test_what_cannot_be_shown(
    arguments: list[str], words: str, code: int, scan: Path, capsys: Output
) -> None:
    assert words in complaint(capsys, ["inspect", "--preview", str(scan), *arguments], code)


def test_a_selection_is_of_a_picture(scan: Path, capsys: Output) -> None:
    line = complaint(capsys, ["inspect", str(scan), "--selection", "0"])
    assert "it is for --preview" in line


def test_a_file_without_arrays(tmp_path: Path, capsys: Output) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = "text"
    line = complaint(capsys, ["inspect", "--preview", str(tmp_path / "x.h5")], 1)
    assert "no array of real numbers" in line
