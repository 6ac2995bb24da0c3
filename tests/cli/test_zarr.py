"""`asgihive zarr`: the URL and the tree that Zarr clients will see."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive.cli import main
from tests.cli.processes import complaint

Output = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def scan(directory: Path) -> Path:
    path = directory / "my scan.h5"
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "a scan"
        frames = np.zeros((3, 40, 50), "<u2")
        file.create_dataset("entry/data", data=frames, chunks=(1, 40, 50), compression="gzip")
        file["entry/time#1"] = np.arange(3.0)
        file["entry/time#1"].make_scale()
        file["entry/data"].dims[0].attach_scale(file["entry/time#1"])
        file["entry/data"].attrs["units"] = "counts"
        file["entry/word"] = "née"
        file["entry/lost"] = h5py.SoftLink("/no/such")
        file["entry"].attrs["reference"] = file["entry/data"].ref
    return path


def test_people_see_url_tree_and_what_is_left_out(
    scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which there is with and without the extra codecs.
    monkeypatch.setenv("ASGIHIVE_ZARR_COMPRESSION", "zstd")
    assert main(["zarr", str(scan)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("http://127.0.0.1:8000/zarr/my%20scan.h5 ")
    rows = {line.split()[0]: line.split("  ") for line in lines if line.startswith("/")}
    cells = {path: [each.strip() for each in row if each.strip()] for path, row in rows.items()}
    assert cells["/"] == ["/", "1"]
    assert cells["/entry/data"] == [
        *("/entry/data", "3 x 40 x 50", "3 x 40 x 50", "uint16", "bytes+zstd"),
        *("time_1, dim_40, dim_50", "decoded", "1"),
    ]
    assert cells["/entry/time_1"][-2:] == ["time_1", "stored"]
    assert cells["/entry/word"][1:4] == ["scalar", "string", "vlen-utf8+zstd"]
    left_out = lines[lines.index("left out:") + 1 :]
    assert any(line.startswith("  /entry/lost: ") for line in left_out)
    assert any(line.startswith("  /entry, attribute reference: ") for line in left_out)


def test_programs_get_the_tree_of_a_group_as_json(scan: Path, capsys: Output) -> None:
    assert main(["zarr", str(scan), "/entry", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["url"] == "http://127.0.0.1:8000/zarr/my%20scan.h5/entry"
    nodes = {each["path"]: each for each in document["nodes"]}
    assert nodes.keys() == {"/", "/data", "/time_1", "/word"}
    assert nodes["/time_1"]["real_name"] == "time#1"
    assert nodes["/data"]["dimension_names"] == ["time_1", "dim_40", "dim_50"]
    assert nodes["/"]["omitted"].keys() == {"lost"}
    assert document["complete"] is True


def test_one_array_by_the_name_that_clients_see(scan: Path, capsys: Output) -> None:
    assert main(["zarr", str(scan), "/entry/time_1"]) == 0
    assert "/zarr/my%20scan.h5/entry/time_1" in capsys.readouterr().out


def test_what_cannot_be_shown_is_told_in_one_line(scan: Path, capsys: Output) -> None:
    line = complaint(capsys, ["zarr", str(scan), "/nothing"], 1)
    assert "/nothing is not a valid path" in line
    line = complaint(capsys, ["zarr", str(scan.parent / "none.h5")])
    assert "no such file" in line
