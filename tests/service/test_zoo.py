"""Every entity of every file of the zoo, against h5py and NumPy on the same file."""

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import httpx
import msgpack
import numpy as np
import pytest

from tests.zoo import arrow_tables, awkward, names, oracle, selections
from tests.zoo.arrow_tables import ARROW
from tests.zoo.bodies import SAME, has_cells, unpack
from tests.zoo.client import Asker
from tests.zoo.exact import same_statistics, statistics
from tests.zoo.findings import Findings, ask, document, each_content, one_in
from tests.zoo.oracle import Entity, same_json

pytestmark = pytest.mark.anyio


@each_content
async def test_metadata(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    for entity in oracle.read(zoo, file):
        for resolve, expected in [("only_valid", entity.metadata), ("FALSE", entity.link)]:
            answer = await ask(asker, "/meta", file, path=entity.path, resolve_links=resolve)
            good = _same_metadata(document(answer), expected)
            findings.check(good, ("/meta", entity.path, resolve), answer, expected)
        answer = await ask(asker, "/meta", file, path=entity.path, resolve_links="all")
        good = (
            answer.status_code == 404 and "Cannot resolve" in answer.json()["message"]
            if entity.kind.endswith("_link")
            else _same_metadata(document(answer), entity.metadata)
        )
        findings.check(good, ("/meta", entity.path, "all"), answer, entity.metadata)
        if len(entity.path) > 1:
            answer = await ask(asker, "/meta", file, path=entity.path[1:])
            good = _same_metadata(document(answer), entity.metadata)
            findings.check(good, ("/meta", entity.path[1:]), answer, entity.metadata)
    findings.report()


def _same_metadata(answer: Any, expected: Any) -> bool:
    """Equal; only a native complex type (class 11) may say more than the contract lists."""
    if isinstance(expected, dict) and isinstance(answer, dict):
        extra = answer.keys() - expected.keys()
        return (
            answer.keys() >= expected.keys()
            and (not extra or expected.get("class") == 11)
            and all(_same_metadata(answer[key], expected[key]) for key in expected)
        )
    if isinstance(expected, list) and isinstance(answer, list):
        return len(answer) == len(expected) and all(map(_same_metadata, answer, expected))
    return bool(answer == expected and type(answer) is type(expected))


@each_content
async def test_attributes(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    for entity in oracle.read(zoo, file):
        answer = await ask(asker, "/attr", file, path=entity.path)
        if entity.kind.endswith("_link"):
            findings.check(answer.status_code == 422, ("/attr", entity.path), answer, 422)
            continue
        good = _same_attributes(document(answer), entity.attributes)
        findings.check(good, ("/attr", entity.path), answer, entity.attributes)
        chosen = list(entity.attributes)[::7][:3]
        if chosen:
            answer = await ask(asker, "/attr", file, path=entity.path, attr_keys=chosen)
            expected = {name: entity.attributes[name] for name in chosen}
            good = _same_attributes(document(answer), expected)
            findings.check(good, ("/attr", entity.path, chosen), answer, expected)
    findings.report()


def _same_attributes(answer: Any, expected: dict[str, Any]) -> bool:
    return (
        isinstance(answer, dict)
        and answer.keys() == expected.keys()
        and all(same_json(answer[name], expected[name]) for name in expected)
    )


@each_content
async def test_values_as_json(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    for entity in oracle.datasets(zoo, file):
        for flatten in ("OFF", "True"):
            asked = {"path": entity.path, "flatten": flatten}
            answer = await ask(asker, "/data", file, **asked)
            expected = oracle.flattened(entity.value) if flatten == "True" else entity.value
            findings.check(same_json(document(answer), expected), asked, answer, expected)
        answer = await ask(asker, "/data", file, path=entity.path, dtype="safe")
        assert entity.dtype is not None
        if oracle.is_numeric(entity.dtype) and entity.shape is not None:
            expected = oracle.safe(entity.value)
            good = same_json(document(answer), expected)
        else:
            expected, good = 422, answer.status_code in {200, 422}
        findings.check(good, (entity.path, "safe"), answer, expected)
    findings.report()


@each_content
@one_in(7)
async def test_values_as_arrays(zoo: Path, zoo_app: Any, file: str, step: int) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    formats = ("bin", "npy", "csv", "tiff", "msgpack", *ARROW)
    everything = itertools.product(oracle.datasets(zoo, file), ("origin", "safe"), formats)
    for entity, dtype, format_ in itertools.islice(everything, None, None, step):
        asked = {"path": entity.path, "format": format_, "dtype": dtype}
        answer = await ask(asker, "/data", file, **asked)
        expected = _expected_array(entity, format_, dtype)
        good = (
            answer.status_code == 422 and bool(answer.json()["message"])
            if expected is None
            else answer.status_code == 200 and SAME[format_](answer, expected)
        )
        good = good or _may_refuse(entity, format_, answer)
        findings.check(good, asked, answer, expected)
    findings.report()


def _expected_array(entity: Entity, format_: str, dtype: str) -> np.ndarray[Any, Any] | None:
    """The array an answer must hold, or None where it must be refused."""
    assert entity.dtype is not None
    if entity.shape is None or not _holds(format_, entity.dtype):
        return None
    array = np.asarray(entity.value)
    # A scalar of fixed bytes comes from h5py as Python bytes of their own length, and one of
    # variable length without the mark of text.
    array = array.astype(entity.dtype.base) if array.dtype.kind in "SO" else array
    if (dtype == "safe" or format_ == "tiff") and not oracle.is_numeric(entity.dtype):
        return None
    if format_ == "arrow":
        if (
            array.ndim and entity.shape == () and entity.dtype.kind == "O"
        ):  # one list of variable length
            array = np.empty((), entity.dtype)
            array[()] = entity.value
        shown = oracle.safe(array).dtype if dtype == "safe" else entity.dtype
        if not arrow_tables.holds(array.shape, shown):
            return None
    if format_ in {"csv", "tiff"}:
        fits = {"csv": (1, 2), "tiff": (2, 3)}[format_]
        if array.ndim not in ((1,) if array.dtype.names is not None else fits):
            return None
    return oracle.safe(array) if dtype == "safe" else array


def _holds(format_: str, dtype: np.dtype[Any]) -> bool:
    is_variable_text = dtype.hasobject and dtype.kind == "O" and has_cells(dtype)
    match format_:
        case "csv":
            return has_cells(dtype)
        case "msgpack":
            return is_variable_text or (has_cells(dtype) and not dtype.hasobject)
        case "npy":
            return has_cells(dtype) and not dtype.hasobject
        case "arrow":
            return True
        case _:
            return not dtype.hasobject


def _may_refuse(entity: Entity, format_: str, answer: httpx.Response) -> bool:
    """Whether the contract leaves the choice, and the service has taken one of the two."""
    dtype = entity.dtype
    assert dtype is not None
    if format_ == "msgpack" and entity.shape is None:
        return bool(answer.content == msgpack.packb(None))
    if format_ == "bin":
        # A single variable-length element is plain bytes once it is read.
        single = entity.shape == () and h5py.check_ref_dtype(dtype) is None and dtype.hasobject
        plain = np.asarray(entity.value).tobytes() if single else b""
        return (single or entity.shape is None) and answer.content == plain
    kind, size = dtype.base.kind, dtype.base.itemsize
    doubtful = {
        "csv": kind in "bc",
        "tiff": kind in "bc" or size > 8 or 0 in (entity.shape or ()),
    }
    refused = answer.status_code == 422 and bool(answer.json()["message"])
    return doubtful.get(format_, False) and refused


@each_content
async def test_statistics(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    for entity in oracle.datasets(zoo, file):
        if entity.shape is None or entity.path.endswith("beyond_double"):
            continue
        assert entity.dtype is not None
        for selection, index in list(selections.fitting(entity.shape))[::5]:
            asked = {"path": entity.path, "selection": selection}
            answer = await ask(asker, "/stats", file, **asked)
            if entity.dtype.base.kind not in "biuf":
                findings.check(answer.status_code == 422, asked, answer, 422)
                continue
            expected = statistics(np.asarray(entity.value)[index])
            findings.check(same_statistics(document(answer), expected), asked, answer, expected)
    findings.report()


@each_content
async def test_paths(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    for entity in oracle.read(zoo, file):
        answer = await ask(asker, "/paths", file, path=entity.path)
        if entity.kind != "group":
            # What cannot be followed is both no group (422) and unresolved (404).
            refusals = {404, 422} if entity.kind.endswith("_link") else {422}
            good = answer.status_code in refusals and bool(answer.json()["message"])
            findings.check(good, ("/paths", entity.path), answer, refusals)
            continue
        expected = entity.below
        given = document(answer)
        good = isinstance(given, list) and given[:1] == [entity.path]
        good = good and sorted(given) == sorted(expected)
        findings.check(good, ("/paths", entity.path), answer, expected)
    findings.report()


@pytest.mark.parametrize(
    "file",
    [pytest.param("types.h5", marks=pytest.mark.slow), "attributes.h5", "links.h5", "nexus.nxs"],
)
@pytest.mark.slow_on_trio
async def test_metadata_as_msgpack(zoo: Path, zoo_app: Any, file: str) -> None:
    """`/meta`, `/stats` and `/paths` say in msgpack what they say in JSON."""
    findings = Findings(file)
    accept = {"accept": "application/vnd.msgpack"}
    asker = Asker(zoo_app)
    for entity in oracle.read(zoo, file):
        for route in ("/meta", "/stats", "/paths"):
            params = {"file": file, "path": entity.path}
            as_json = await asker.get(route, params=params)
            answer = await asker.get(route, params=params, headers=accept)
            if as_json.status_code != 200:
                findings.check(answer.status_code == as_json.status_code, route, answer)
                continue
            good = (
                answer.headers["content-type"] == "application/vnd.msgpack"
                and unpack(answer) == as_json.json()
            )
            findings.check(good, (route, entity.path), answer, as_json.text)
    findings.report()


async def test_attributes_as_msgpack(zoo: Path, zoo_app: Any) -> None:
    """Numeric attributes are arrays that `msgpack-numpy` decodes."""
    accept = {"accept": "application/vnd.msgpack"}
    asker = Asker(zoo_app)
    answer = await asker.get("/attr", params={"file": "attributes.h5"}, headers=accept)
    given = unpack(answer)
    attributes = oracle.read(zoo, "attributes.h5")[0].attributes
    assert given.keys() == attributes.keys()
    for name in ("int", "uint64_max", "float32", "half_big", "matrix", "complex", "zero_sized"):
        np.testing.assert_array_equal(given[name], attributes[name], err_msg=name)
    for name in ("text", "texts_not_utf8", "compound", "reference", "empty_number"):
        assert same_json(given[name], attributes[name]), (name, given[name])


@pytest.mark.parametrize("name", [name for name in names.ODD_NAMES if len(name) < 100])
async def test_attachment_is_named_after_the_dataset(zoo_app: Any, name: str) -> None:
    """RFC 6266, section 4.3: what is not ISO-8859-1 travels in `filename*` (RFC 8187)."""
    params = {"file": names.FILE_NAME, "path": f"/datasets/{name}", "format": "npy"}
    asker = Asker(zoo_app)
    answer = await asker.get("/data", params=params)
    assert answer.status_code == 200
    disposition = answer.headers["content-disposition"]
    assert disposition.isprintable()
    assert disposition.isascii()
    if name.isprintable() and not set(name) & set("\\/%\"<>?:*|;'#& .+="):
        assert quote(name) in disposition


async def test_accept_chooses_the_format(zoo_app: Any) -> None:
    params = {"file": "layouts.h5", "path": "/contiguous"}
    asker = Asker(zoo_app)
    for accept, media_type in [
        ("text/csv", "text/csv"),
        ("image/tiff, */*;q=0.1", "image/tiff"),
        ("application/octet-stream", "application/octet-stream"),
        ("application/vnd.msgpack", "application/vnd.msgpack"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
    ]:
        answer = await asker.get("/data", params=params, headers={"accept": accept})
        assert answer.status_code == 200, accept
        assert answer.headers["content-type"].split(";")[0] == media_type, accept
    both = await asker.get(
        "/data", params={**params, "format": "json"}, headers={"accept": "text/csv"}
    )
    assert both.headers["content-type"] == "application/json"


async def test_what_numpy_has_no_type_for(zoo: Path, zoo_app: Any) -> None:
    """One such entity must not take the metadata of its group and siblings away."""
    asker = Asker(zoo_app)
    answer = await ask(asker, "/meta", awkward.FILE)
    assert answer.status_code == 200, answer.text
    children = {child["name"]: child for child in answer.json()["children"]}
    assert children["plain"]["type"]["dtype"] == "<i8"
    assert children["time"]["type"]["class"] == 2
    assert children["time"]["type"]["size"] == 4
    assert children["quadruple"]["type"] | {"dtype": ""} == {
        "class": 1, "dtype": "", "size": 16, "order": 0
    }  # fmt: skip
    assert children["opaque_tagged"]["type"]["tag"] == "tag \ufffd"
    members = children["compound_names"]["type"]["members"]
    assert [member["name"] for member in members] == ["bad \ufffd", "good"]
    assert children["enum_names"]["type"]["members"] == {"bad \ufffd": 1}
    # h5py reads members as signed integers, so the value of ALL is beyond it.
    assert children["enum_all_bits"]["type"]["members"].keys() == {"ALL", "NONE"}
    assert {"group \ufffd", "dataset \ufffd"} <= children.keys()
    assert {each["name"] for each in answer.json()["attributes"]} == {
        "plain", "time", "name \ufffd"
    }  # fmt: skip
    for name in children:
        for route in ("/meta", "/attr", "/data", "/stats", "/paths"):
            answer = await ask(asker, route, awkward.FILE, path=f"/{name}")
            assert answer.status_code in {200, 404, 422, 501}, (route, name, answer.text)
    paths = await ask(asker, "/paths", awkward.FILE)
    assert paths.status_code == 200
    assert "/plain" in paths.json()
    attributes = await ask(asker, "/attr", awkward.FILE, attr_keys="plain")
    assert attributes.json() == {"plain": 1}


async def test_what_only_the_low_level_reads(zoo_app: Any) -> None:
    asker = Asker(zoo_app)
    tagged = {"path": "/opaque_tagged"}
    answer = await ask(asker, "/data", awkward.FILE, **tagged, format="bin")
    assert answer.content == awkward.TAGGED.tobytes(), answer.text
    answer = await ask(asker, "/data", awkward.FILE, **tagged)
    assert answer.json() == [oracle.text(bytes(item)) for item in awkward.TAGGED.tolist()]
    answer = await ask(asker, "/data", awkward.FILE, path="/enum_all_bits")
    assert answer.json() == [2**64 - 1] * 4
    answer = await ask(asker, "/data", awkward.FILE, path="/bits_8_big")
    assert answer.json() == [0, 1, 128, 255]
