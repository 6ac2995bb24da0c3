"""`asgihive inspect`: what people and programs are shown, and what is said where it cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.cli import main
from asgihive.cli.formatting import format_table, human_size, printable, width_of
from tests.cli.processes import complaint

Output = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("no_terminal")


@pytest.fixture
def scan(directory: Path) -> Path:
    path = directory / "scan.h5"
    frames = np.arange(3 * 40 * 50, dtype="<u2").reshape(3, 40, 50)
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.create_dataset(
            "data",
            data=frames,
            chunks=(1, 40, 50),
            maxshape=(None, 40, 50),
            compression="gzip",
            shuffle=True,
        )
        entry["energy"] = np.arange(10, dtype=">f8")
        entry["title"] = "née"
        entry["values"] = h5py.ExternalLink("x.h5", "/values")
        entry["lost"] = h5py.SoftLink("/no/such")
        layout = h5py.VirtualLayout((2, 5), "i8")
        layout[0] = h5py.VirtualSource("x.h5", "values", (5,))
        layout[1] = h5py.VirtualSource("y.h5", "values", (5,))
        entry.create_virtual_dataset("stack", layout)
        entry["table"] = np.zeros(2, [("a", "i4"), ("b", "S3")])
        file["type"] = np.dtype(("f4", (2, 3)))
    return path


def shown(capsys: Output, *arguments: str | Path) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    text: str = captured.out
    return text


def facts(text: str) -> dict[str, str]:
    """The lines below the headline; a name that is blank is the one above."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("\n\n")[0].splitlines()[1:]:
        name = line[2:12].strip() or name
        found[name] = f"{found[name]}\n{line[14:]}" if name in found else line[14:]
    return found


def test_only_compounds_have_members_in_a_table(tmp_path: Path, capsys: Output) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["flags"] = np.array([True, False])
        file.create_dataset("states", data=[1, 2], dtype=h5py.enum_dtype({"on": 1, "off": 2}, "i4"))
        file["rows"] = np.zeros(3, [("a", "i4"), ("b", "f8")])
    _, body = shown(capsys, tmp_path / "x.h5", "--storage").split("\n\n")
    title, *rows = body.splitlines()
    column = slice(title.index("type"), title.index("layout"))
    types = {row.split()[0]: row[column].strip() for row in rows}
    assert types == {
        "flags": "bool",
        "rows": "compound (2 members)",
        "states": "enum of int32",
    }


def test_how_the_children_of_a_group_are_stored(scan: Path, capsys: Output) -> None:
    text = shown(capsys, scan, "/entry", "--storage")
    head, body = text.split("\n\n")
    assert head.splitlines()[0] == f"/entry of {scan}"
    title, *rows = body.splitlines()
    assert " ".join(title.split()) == (
        "name kind shape type layout chunk chunks filters stored raw ratio way note"
    )
    column = {name: title.index(name) for name in ("kind", "layout", "way", "note")}
    by_name = {row.split()[0]: row for row in rows}
    assert list(by_name) == ["data", "energy", "lost", "stack", "table", "title", "values"]
    data = " ".join(by_name["data"].split())
    assert data.startswith(
        "data dataset 3 x 40 x 50 uint16 chunked 1 x 40 x 50 3/3 shuffle+deflate "
    )
    assert data.endswith(" engine")
    assert " 11.7 KiB " in data
    energy = " ".join(by_name["energy"].split())
    assert energy.endswith(" contiguous 80 B 80 B 1 contiguous")
    assert "float64 big-endian" in by_name["energy"]
    assert "compound (2 members)" in by_name["table"]
    assert by_name["title"][column["way"] :].split(maxsplit=1)[0] == "library"
    assert by_name["title"][column["note"] :] == "type: variable-length strings"
    assert by_name["values"].endswith("-> x.h5:/values")
    assert by_name["lost"][column["kind"] :].startswith("soft link")
    assert by_name["lost"][column["note"] :] == (
        "-> /no/such, does not resolve: there is no 'no' in its target"
    )


def test_a_dataset_in_detail(scan: Path, capsys: Output) -> None:
    found = facts(shown(capsys, scan, "/entry/data"))
    assert found["kind"] == "dataset"
    assert found["shape"] == "3 x 40 x 50, at most unlimited x 40 x 50"
    assert found["type"] == "uint16"
    assert found["layout"] == "chunked"
    assert found["chunk"] == "1 x 40 x 50, 3.91 KiB raw"
    assert found["chunks"] == "3 stored of 3"
    assert found["filters"] == (
        "shuffle (2), decoded by asgihive\ndeflate (1), decoded by asgihive"
    )
    assert found["size"].endswith(" to 1")
    assert "11.7 KiB raw" in found["size"]
    assert found["way"].startswith("engine: ")
    assert "the median" in found["as stored"]


def test_a_virtual_dataset_has_its_sources(scan: Path, capsys: Output) -> None:
    text = shown(capsys, scan, "/entry/stack")
    assert facts(text)["sources"] == "2, 1 missing"
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()]
    assert rows[0] == ["file", "dataset", "found", "refused", "way", "problem"]
    assert rows[1] == ["x.h5", "values", "yes", "no", "contiguous"]
    assert rows[2][:5] == ["y.h5", "values", "no", "no", "y.h5"]


def test_links_of_the_path_are_told(scan: Path, capsys: Output) -> None:
    found = facts(shown(capsys, scan, "entry/values"))
    assert found["links"] == "/entry/values -> x.h5:/values"
    assert found["lies at"] == "/values of x.h5"
    broken = facts(shown(capsys, scan, "/entry/lost"))
    assert broken["kind"] == "soft link"
    assert "does not resolve" in broken["links"]
    assert "problem" not in broken


def test_a_type(scan: Path, capsys: Output) -> None:
    assert facts(shown(capsys, scan, "/type"))["type"] == "2 x 3 of float32"
    table_type = facts(shown(capsys, scan, "/entry/table"))["type"]
    assert table_type == "compound (a int32, b string (3 bytes))"


KEYS = {
    "name path kind file object_path links type storage members children problem",
    (
        "dataspace shape maxshape layout chunks filters raw_bytes stored_bytes ratio way reason "
        "sources segments"
    ),
    "shape raw_bytes in_grid stored smallest median largest",
    "id name values decoder install",
    "file dataset found refused way problem",
    "path kind target_file target_path resolves problem",
}


def keys_in(document: Any) -> set[str]:
    """The keys of each object, as one text, but those of types."""
    if isinstance(document, list):
        return set().union(*map(keys_in, document))
    if not isinstance(document, dict):
        return set()
    inside = (value for name, value in document.items() if name != "type")
    return {" ".join(document)}.union(*map(keys_in, inside))


def test_for_programs(scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    group = json.loads(shown(capsys, scan, "/entry", "--json"))
    stack = json.loads(shown(capsys, scan, "/entry/stack", "--json"))
    assert keys_in([group, stack]) == KEYS
    assert [child["name"] for child in group["children"]][:2] == ["data", "energy"]
    data = json.loads(shown(capsys, scan, "/entry/data", "--json"))["storage"]
    with h5py.File(scan) as file:
        stored = file["entry/data"].id.get_storage_size()
    assert (data["stored_bytes"], data["raw_bytes"]) == (stored, 12000)
    assert data["maxshape"] == [None, 40, 50]
    assert data["way"] == "engine"
    assert [each["decoder"] for each in data["filters"]] == ["asgihive", "asgihive"]
    monkeypatch.setattr(sys, "argv", ["asgihive"])
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert words.issuperset(" ".join(KEYS).split())


def test_a_terminal_is_not_overflown(
    scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = shown(capsys, scan, "/entry", "--storage")
    monkeypatch.setenv("COLUMNS", "60")
    lines = shown(capsys, scan, "/entry", "--storage").split("\n\n")[1].splitlines()
    assert len(lines) > len(wide.split("\n\n")[1].splitlines())
    at = lines.index(next(line for line in lines if line.startswith("data ")))
    assert lines[at + 1].startswith("    ")
    assert all(len(line) <= 60 for line in lines)


def test_names_cannot_do_anything_to_a_terminal(directory: Path, capsys: Output) -> None:
    with h5py.File(directory / "odd.h5", "w") as file:
        file["red \x1b[31m\n"] = 1
        file["x" * 10_000] = 1
        file["日本"] = 1
        file["link"] = h5py.SoftLink("\x1b]0;title\x07")
    text = shown(capsys, directory / "odd.h5", "--storage")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"red \x1b[31m\n" in text
    assert max(map(len, text.splitlines())) < 300
    rows = text.split("\n\n")[1].splitlines()
    kinds = {width_of(row[: row.index("dataset")]) for row in rows if "dataset" in row}
    assert len(kinds) == 1
    assert json.loads(shown(capsys, directory / "odd.h5", "--json"))["members"] == 4
    missing = complaint(capsys, ["inspect", str(directory / "odd.h5"), "/\x1b[31m"], 1)
    assert "\x1b" not in missing


def test_a_terminal_without_letters(
    scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(scan, "a") as file:
        file["née"] = 1
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii", raising=False)
    assert r"n\xe9e" in shown(capsys, scan)


def test_the_root_is_a_fence(scan: Path, capsys: Output) -> None:
    inner = scan.parent / "inner"
    inner.mkdir()
    with h5py.File(inner / "links.h5", "w") as file:
        file["up"] = h5py.ExternalLink("../x.h5", "/values")
    alone = json.loads(shown(capsys, inner / "links.h5", "/up", "--json"))
    assert (alone["kind"], alone["links"][0]["resolves"]) == ("external_link", False)
    arguments = (inner / "links.h5", "/up", "--json", "--root", scan.parent)
    wider = json.loads(shown(capsys, *arguments))
    assert (wider["kind"], wider["file"], wider["links"][0]["resolves"]) == (
        "dataset",
        "x.h5",
        True,
    )
    (scan.parent / "alias").symlink_to(inner)
    assert "links.h5" in shown(capsys, scan.parent / "alias" / "links.h5")
    assert "links.h5" in shown(capsys, inner / "links.h5", "--root", scan.parent / "alias")


def test_a_symbolic_link_out_of_the_directory(
    scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = scan.parent.parent / "other"
    other.mkdir()
    (other / "alias.h5").symlink_to(scan)
    line = complaint(capsys, ["inspect", str(other / "alias.h5")], 1)
    assert f"leads out of {other}, to {scan}: name that file, or with --root" in line
    assert "entry/" in shown(capsys, other / "alias.h5", "--root", other.parent)
    monkeypatch.setenv("ASGIHIVE_FOLLOW_SYMLINKS", "yes")
    assert "entry/" in shown(capsys, other / "alias.h5")


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ([], "FILE", 2),
        (["missing.h5"], "'missing.h5': no such file", 2),
        (["."], "'.' is a directory: name the files in it", 2),
        (["/dev/null"], "'/dev/null' is not a file", 2),
        (["text.h5"], "text.h5 is not a readable HDF5 file", 1),
        (["x.h5", "/nothing"], "/nothing is not a valid path in x.h5", 1),
        (["x.h5", "/values/below"], "/values/below is not a valid path", 1),
        (["x.h5", "y.h5"], "'y.h5' is neither a file nor a path in x.h5", 1),
        (["x.h5", "--root", "missing"], "'missing': no such directory", 2),
        (["x.h5", "--root", "inner"], "is not below", 1),
        (["x.h5", "/", "more"], "'/' is a directory", 2),
        (["x.h5", "y.h5", "x.h5"], "'y.h5': no such file", 2),
        (["--jsn", "x.h5"], "there is no option --jsn (did you mean --json?)", 2),
    ],
)
def test_errors_are_one_line(  # noqa: PLR0917  # fixtures, asked for by name
    arguments: list[str],
    words: str,
    code: int,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    monkeypatch.chdir(directory)
    (directory / "text.h5").write_text("no HDF5")
    (directory / "inner").mkdir()
    assert words in complaint(capsys, ["inspect", *arguments], code)


def test_several_files(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(directory)
    with h5py.File("y.h5", "w") as file:
        file["values"] = [0.5]
    both = shown(capsys, "x.h5", "y.h5", "/values")
    assert both.index("/values of x.h5") < both.index("\n\n/values of y.h5")
    x, y = json.loads(shown(capsys, "x.h5", "y.h5", "--json"))
    assert (x["file"], y["file"]) == ("x.h5", "y.h5")
    assert x["path"] == y["path"] == "/"
    # A path without its slash, and a file that cannot be read among those that can.
    assert "/values of y.h5" in shown(capsys, "x.h5", "y.h5", "values")
    Path("text.h5").write_text("no HDF5")
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "text.h5", "x.h5"])
    captured = capsys.readouterr()
    assert ended.value.code == 1
    assert captured.out.startswith("/ of x.h5")
    line = "asgihive inspect: error: text.h5: text.h5 is not a readable HDF5 file"
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


def test_a_bad_setting_is_told(scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGIHIVE_MAX_OPEN_FILES", "many")
    assert "ASGIHIVE_MAX_OPEN_FILES is 'many'" in complaint(capsys, ["inspect", str(scan)])


def test_a_relative_name(scan: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scan.parent)
    assert shown(capsys, "scan.h5").startswith("/ of scan.h5\n")
    assert shown(capsys, f".{os.sep}scan.h5", "--root", "..").startswith("/ of ./scan.h5\n")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (123 << 20, "123 MiB"),
        (1 << 70, "1.02e+03 EiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human_size(size) == text


@given(st.integers(0, (1 << 60) - 1))
def test_a_size_has_three_digits(size: int) -> None:
    number, unit = human_size(size).split()
    assert len(number.replace(".", "").lstrip("0")) <= 3
    power = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert float(number) * 1024**power == pytest.approx(size, rel=0.006)


@given(st.text(max_size=300))
def test_what_is_printable_is_one_short_line(name: str) -> None:
    text = printable(name, 40)
    assert len(text) <= 40
    assert text.isprintable()
    if name.isprintable() and len(name) <= 40:
        assert text == name


CELLS = st.lists(st.tuples(*[st.text("ab日\u0301", max_size=6)] * 3), min_size=1, max_size=5)


@given(CELLS, st.none() | st.integers(1, 30))
def test_tables_are_aligned(rows: list[tuple[str, ...]], width: int | None) -> None:
    table = [("one", "size", "three"), *rows]
    lines = format_table(table, width)
    in_one_line = format_table(table, None)
    assert len(in_one_line) == 1 + len(rows)
    if width is None or max(map(width_of, in_one_line)) <= width:
        assert lines == in_one_line
    for row in rows:
        for cell in row:
            assert cell in "".join(each.strip() for each in lines)


def test_a_reader_that_has_seen_enough(scan: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "asgihive", "inspect", str(scan), "/entry"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        complaints = process.stderr.read()
    assert (process.returncode, complaints) == (0, b"")
