"""`asgihive image` and `asgihive plot`: files with what the routes answer, and clear errors."""

import io
from pathlib import Path
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
from PIL import Image

from asgihive.cli import main
from tests.cli.processes import complaint
from tests.viewer.pictures import paint

Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("no_terminal")

VALUES = np.arange(24.0).reshape(4, 6)


@pytest.fixture
def scan(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(directory)
    path = directory / "my scan.h5"
    with h5py.File(path, "w") as file:
        file["image"] = VALUES
        file["stack"] = np.stack([VALUES, VALUES + 1])
        file["line"] = np.arange(5)
        file["away"] = h5py.ExternalLink("../other.h5", "/image")
    with h5py.File(directory.parent / "other.h5", "w") as file:
        file["image"] = VALUES
    return path


@pytest.mark.parametrize("name", ["x.png", "x.WEBP"])
def test_an_image_is_written_in_the_format_of_its_name(
    scan: Path, capsys: Output, name: str
) -> None:
    options = ["--vmin", "-1", "--vmax=30", "--cmap", "magma"]
    assert main(["image", str(scan), "/stack", "-o", name, "--selection", "1", *options]) == 0
    assert capsys.readouterr().out == f"{name}: /stack [1,0:4,0:6], colours from -1 to 30\n"
    with Image.open(name) as image:
        assert str(image.format).lower() == name.rpartition(".")[2].lower()
        got = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(got, paint(VALUES + 1, -1, 30, "magma"))


def test_stdout_gets_the_bytes(scan: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["image", str(scan), "-o", "-", "--format", "webp"]) == 0
    with Image.open(io.BytesIO(capfdbinary.readouterr().out)) as image:
        assert (image.format, image.size) == ("WEBP", (6, 4))
    assert main(["plot", str(scan), "/line", "-o", "-"]) == 0
    assert ET.fromstring(capfdbinary.readouterr().out).tag.endswith("svg")


def test_a_plot_has_all_paths(scan: Path, capsys: Output) -> None:
    arguments = ["/line", "/image", "--selection", "1:", "--selection", "2,:", "--theme", "dark"]
    assert main(["plot", str(scan), *arguments, "-o", "x.svg"]) == 0
    assert capsys.readouterr().out == "x.svg: /line [1:5;2,0:6]\n"
    root = ET.parse("x.svg").getroot()
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert {"line", "image"} <= set(texts)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["-o", "x.gif"], 2, ".png or .webp"),
        (["-o", "x"], 2, ".png or .webp"),
        (["-o", "x.png", "--cmap", "virids"], 2, "argument --cmap: 'virids'"),
        (["-o", "x.png", "--vmin", "3", "--vmax", "2"], 2, "argument --vmin"),
        (["-o", "x.png", "--shape", "1"], 2, "argument --shape"),
        (["/image", "/stack", "-o", "x.png"], 2, "one dataset"),
        (["/line", "-o", "x.png"], 1, "two dimensions or more"),
        (["/no", "-o", "x.png"], 1, "not a valid path"),
        (["/away", "-o", "x.png"], 1, "Cannot resolve the link"),
        (["-o", "no/such/x.png"], 1, "No such file or directory"),
        (["-o", "x.png", "--root", "/no/such"], 2, "argument --root"),
        (["-o", "x.png", "--cmpa", "gray"], 2, "did you mean --cmap"),
        ([], 2, "required: -o"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_in_a_line(
    scan: Path, capsys: Output, arguments: list[str], code: int, told: str
) -> None:
    assert told in complaint(capsys, ["image", str(scan), *arguments], code)
    assert not Path("x.png").exists()


def test_a_link_may_lead_where_root_allows(scan: Path, capsys: Output) -> None:
    root = str(scan.parent.parent)
    assert main(["image", str(scan), "/away", "-o", "x.png", "--root", root]) == 0


def test_files_that_are_none(scan: Path, capsys: Output) -> None:
    Path("none.h5").write_bytes(b"no HDF5")
    assert "no such file" in complaint(capsys, ["plot", "missing.h5", "-o", "x.svg"])
    assert "is a directory" in complaint(capsys, ["plot", ".", "-o", "x.svg"])
    assert "not a readable" in complaint(capsys, ["plot", "none.h5", "-o", "x.svg"], 1)
