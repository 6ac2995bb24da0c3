"""Every entity of every file of the zoo, against h5py and NumPy on the same file."""

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import httpx
import msgpack
import msgpack_numpy
import numpy as np
import pytest
import tifffile

from tests.zoo import FILES, awkward, names, oracle
from tests.zoo.client import client
from tests.zoo.oracle import Entity, same_json

pytestmark = pytest.mark.anyio

# What a file holds has nothing to do with the event loop: every file meets one of the two.
each_file = pytest.mark.parametrize(
    ("anyio_backend", "file"),
    [((("asyncio", {}), ("trio", {}))[index % 2], file) for index, file in enumerate(FILES)],
    indirect=["anyio_backend"],
    ids=FILES,
)


@dataclass(slots=True)
class Findings:
    """What differs, collected over a whole file so that one run shows it all."""

    file: str
    lines: list[str] = field(default_factory=list)

    def check(self, good: bool, asked: Any, answer: httpx.Response, expected: Any = "") -> bool:
        if not good:
            given = f"{answer.status_code} {answer.content[:300]!r}"
            self.lines.append(f"{self.file} {asked!s:.200}: {given}, expected {expected!s:.300}")
        return good

    def report(self) -> None:
        shown = "\n".join(self.lines[:30])
        assert not self.lines, f"{len(self.lines)} answers differ:\n{shown}"


async def _ask(asker: httpx.AsyncClient, route: str, file: str, **more: Any) -> httpx.Response:
    return await asker.get(route, params={"file": file, **more})


def _json(answer: httpx.Response) -> Any:
    """The document; the answer itself, which equals nothing, when there is none."""
    if answer.status_code == 200 and answer.headers["content-type"] == "application/json":
        with contextlib.suppress(ValueError):
            return answer.json()
    return answer


@each_file
async def test_metadata(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.read(zoo, file):
            for resolve, expected in [("only_valid", entity.metadata), ("FALSE", entity.link)]:
                answer = await _ask(asker, "/meta", file, path=entity.path, resolve_links=resolve)
                good = _same_metadata(_json(answer), expected)
                findings.check(good, ("/meta", entity.path, resolve), answer, expected)
            answer = await _ask(asker, "/meta", file, path=entity.path, resolve_links="all")
            good = (
                answer.status_code == 404 and "Cannot resolve" in answer.json()["message"]
                if entity.kind.endswith("_link")
                else _same_metadata(_json(answer), entity.metadata)
            )
            findings.check(good, ("/meta", entity.path, "all"), answer, entity.metadata)
            if len(entity.path) > 1:
                answer = await _ask(asker, "/meta", file, path=entity.path[1:])
                good = _same_metadata(_json(answer), entity.metadata)
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


@each_file
async def test_attributes(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.read(zoo, file):
            answer = await _ask(asker, "/attr", file, path=entity.path)
            if entity.kind.endswith("_link"):
                findings.check(answer.status_code == 422, ("/attr", entity.path), answer, 422)
                continue
            good = _same_attributes(_json(answer), entity.attributes)
            findings.check(good, ("/attr", entity.path), answer, entity.attributes)
            chosen = list(entity.attributes)[::7][:3]
            if chosen:
                answer = await _ask(asker, "/attr", file, path=entity.path, attr_keys=chosen)
                expected = {name: entity.attributes[name] for name in chosen}
                good = _same_attributes(_json(answer), expected)
                findings.check(good, ("/attr", entity.path, chosen), answer, expected)
    findings.report()


def _same_attributes(answer: Any, expected: dict[str, Any]) -> bool:
    return (
        isinstance(answer, dict)
        and answer.keys() == expected.keys()
        and all(same_json(answer[name], expected[name]) for name in expected)
    )


@each_file
async def test_values_as_json(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.datasets(zoo, file):
            for flatten in ("OFF", "True"):
                asked = {"path": entity.path, "flatten": flatten}
                answer = await _ask(asker, "/data", file, **asked)
                expected = oracle.flattened(entity.value) if flatten == "True" else entity.value
                findings.check(same_json(_json(answer), expected), asked, answer, expected)
            answer = await _ask(asker, "/data", file, path=entity.path, dtype="safe")
            assert entity.dtype is not None
            if oracle.is_numeric(entity.dtype) and entity.shape is not None:
                expected = oracle.safe(entity.value)
                good = same_json(_json(answer), expected)
            else:
                expected, good = 422, answer.status_code in {200, 422}
            findings.check(good, (entity.path, "safe"), answer, expected)
    findings.report()


@each_file
async def test_values_as_arrays(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.datasets(zoo, file):
            for dtype in ("origin", "safe"):
                for format_ in ("bin", "npy", "csv", "tiff", "msgpack"):
                    asked = {"path": entity.path, "format": format_, "dtype": dtype}
                    answer = await _ask(asker, "/data", file, **asked)
                    expected = _expected_array(entity, format_, dtype)
                    good = (
                        answer.status_code == 422 and bool(answer.json()["message"])
                        if expected is None
                        else answer.status_code == 200 and _SAME[format_](answer, expected)
                    )
                    good = good or _may_refuse(entity, format_, answer)
                    findings.check(good, asked, answer, expected)
    findings.report()


def _expected_array(entity: Entity, format_: str, dtype: str) -> np.ndarray[Any, Any] | None:
    """The array an answer must hold, or None where it must be refused."""
    assert entity.dtype is not None
    if entity.shape is None or entity.dtype.hasobject:
        return None
    array = np.asarray(entity.value)
    # A scalar of fixed bytes comes from h5py as Python bytes of their own length.
    array = array.astype(entity.dtype.base) if array.dtype.kind == "S" else array
    if (dtype == "safe" or format_ != "bin") and not oracle.is_numeric(entity.dtype):
        return None
    if format_ in {"csv", "tiff"}:
        fits = {"csv": (1, 2), "tiff": (2, 3)}[format_]
        if array.ndim not in fits:
            return None
    return oracle.safe(array) if dtype == "safe" else array


def _may_refuse(entity: Entity, format_: str, answer: httpx.Response) -> bool:
    """Whether the contract leaves the choice, and the service has taken one of the two."""
    dtype = entity.dtype
    assert dtype is not None
    if format_ == "msgpack" and entity.shape is None:
        return answer.content == msgpack.packb(None)
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


def _same_bin(answer: httpx.Response, expected: np.ndarray[Any, Any]) -> bool:
    body = answer.content
    return (
        answer.headers["content-type"] == "application/octet-stream"
        and answer.headers["content-length"] == str(expected.nbytes)
        and len(body) == expected.nbytes
        and _same_bits(np.frombuffer(body, expected.dtype).reshape(expected.shape), expected)
    )


def _same_bits(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    """Equal bytes, without what lies between the members of an aligned compound."""
    if one.dtype.names is None or other.dtype.names is None:
        # The padding of a longdouble is not part of its value either.
        if one.dtype.itemsize > 8 and one.dtype.kind in "fc":
            return np.array_equal(one, other, equal_nan=True)
        return one.tobytes() == other.tobytes()
    return all(_same_bits(one[name], other[name]) for name in other.dtype.names)


def _same_npy(answer: httpx.Response, expected: np.ndarray[Any, Any]) -> bool:
    array = np.load(io.BytesIO(answer.content))
    return (
        answer.headers["content-type"] == "application/octet-stream"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.headers["content-length"] == str(len(answer.content))
        and array.dtype == expected.dtype.base
        and array.shape == expected.shape
        and _same_bits(array, expected)
    )


def _same_csv(answer: httpx.Response, expected: np.ndarray[Any, Any]) -> bool:
    with io.BytesIO() as buffer:
        np.savetxt(buffer, expected, delimiter=",")
        body = buffer.getvalue()
    return (
        answer.headers["content-type"].split(";")[0] == "text/csv"
        and answer.headers["content-disposition"].startswith("attachment")
        and answer.content == body
    )


def _same_tiff(answer: httpx.Response, expected: np.ndarray[Any, Any]) -> bool:
    with tifffile.TiffFile(io.BytesIO(answer.content)) as tiff:
        array = tiff.asarray()
        pages, photometric = len(tiff.pages), tiff.pages.first.photometric
    samples = np.dtype("u1") if expected.dtype.kind == "b" else expected.dtype
    return (
        answer.headers["content-type"] == "image/tiff"
        and answer.headers["content-disposition"].startswith("attachment")
        and photometric == tifffile.PHOTOMETRIC.MINISBLACK
        and pages == (1 if expected.ndim == 2 else len(expected))
        and array.dtype.newbyteorder("=") == samples.newbyteorder("=")
        and np.array_equal(
            array.reshape(expected.shape), expected, equal_nan=expected.dtype.kind in "fc"
        )
    )


def _unpack(answer: httpx.Response) -> Any:
    return msgpack.unpackb(answer.content, object_hook=msgpack_numpy.decode, strict_map_key=False)


def _same_msgpack(answer: httpx.Response, expected: np.ndarray[Any, Any]) -> bool:
    array = np.asarray(_unpack(answer))
    return (
        answer.headers["content-type"] == "application/vnd.msgpack"
        and array.shape == expected.shape
        and (expected.ndim == 0 or array.dtype == expected.dtype)
        and np.array_equal(array, expected, equal_nan=expected.dtype.kind in "fc")
    )


_SAME = {
    "bin": _same_bin,
    "npy": _same_npy,
    "csv": _same_csv,
    "tiff": _same_tiff,
    "msgpack": _same_msgpack,
}


@each_file
async def test_selections(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    seen: set[tuple[int, ...]] = set()
    async with client(zoo_app) as asker:
        for entity in oracle.datasets(zoo, file):
            if entity.shape is None:
                continue
            for turn, (selection, index) in enumerate(_selections(entity.shape)):
                asked = {"path": entity.path, "selection": selection}
                expected = np.asarray(entity.value, _holder(entity))[index]
                if turn % 2:
                    asked["flatten"], expected = "yes", oracle.flattened(expected)
                answer = await _ask(asker, "/data", file, **asked)
                findings.check(same_json(_json(answer), expected), asked, answer, expected)
            if entity.shape in seen:
                continue
            seen.add(entity.shape)
            for selection in _impossible(entity.shape):
                asked = {"path": entity.path, "selection": selection}
                answer = await _ask(asker, "/data", file, **asked)
                good = answer.status_code == 422 and "selection" in answer.json()["message"]
                findings.check(good, asked, answer, 422)
    findings.report()


def _holder(entity: Entity) -> Any:
    """Scalars of Python objects stay such when NumPy wraps them."""
    return object if entity.dtype is not None and entity.dtype.kind == "O" else None


def _selections(shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Texts that fit the shape, and the NumPy index that each stands for.

    No index holds an ellipsis, which would reach into the elements of an array type.
    """
    yield "", ()
    yield "...", ()
    if not shape:
        return
    rest = (slice(None),) * (len(shape) - 1)
    yield ":", slice(None)
    yield " 1 : , ..." if len(shape) > 1 else " 1 : ", slice(1, None)
    yield "::2", slice(None, None, 2)
    yield "-2:", slice(-2, None)
    yield "2:1", slice(2, 1)
    yield "0:1000000:3", slice(0, 1_000_000, 3)
    yield ",".join([":"] * len(shape)), ()
    yield "...,1::2", (*rest, slice(1, None, 2))
    if all(shape):
        last = tuple(extent - 1 for extent in shape)
        yield ",".join(map(str, last)), last
        yield ",".join(["-1"] * len(shape)), last
        yield "0", 0
        yield "...,-1", (*rest, -1)
        yield "0,:" if len(shape) > 1 else "-1", 0 if len(shape) > 1 else -1


def _impossible(shape: tuple[int, ...]) -> Iterator[str]:
    yield ",".join([":"] * (len(shape) + 1))
    yield "one"
    yield "0:1:2:3"
    yield "1.5"
    if shape:
        yield f"{shape[0]}"
        yield f"-{shape[0] + 1}"
        yield "::0"
        yield "...,..."


@each_file
async def test_selected_bytes(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.datasets(zoo, file):
            if entity.shape is None or entity.dtype is None or not oracle.is_numeric(entity.dtype):
                continue
            for selection, index in _selections(entity.shape):
                asked = {"path": entity.path, "selection": selection, "format": "bin"}
                answer = await _ask(asker, "/data", file, **asked)
                # A single element keeps the byte order that NumPy's scalars lose.
                expected = np.asarray(np.asarray(entity.value)[index], entity.dtype.base)
                good = answer.status_code == 200 and _same_bin(answer, expected)
                findings.check(good, asked, answer, expected)
    findings.report()


@each_file
async def test_statistics(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.datasets(zoo, file):
            if entity.shape is None or entity.path.endswith("beyond_double"):
                continue
            assert entity.dtype is not None
            for selection, index in list(_selections(entity.shape))[::5]:
                asked = {"path": entity.path, "selection": selection}
                answer = await _ask(asker, "/stats", file, **asked)
                if entity.dtype.base.kind not in "biuf":
                    findings.check(answer.status_code == 422, asked, answer, 422)
                    continue
                expected = _statistics(np.asarray(entity.value)[index])
                findings.check(_same_statistics(_json(answer), expected), asked, answer, expected)
    findings.report()


def _statistics(array: np.ndarray[Any, Any]) -> dict[str, int | float | None]:
    """The six numbers, in exact arithmetic until the last step."""
    integral = array.dtype.kind in "biu"
    finite = array if integral else array[np.isfinite(array)]
    values = [int(v) if integral else Fraction(*v.as_integer_ratio()) for v in finite.flat]
    found: dict[str, Any] = {
        "min": min(values, default=None),
        "max": max(values, default=None),
        "positive_min": min((v for v in values if v >= 0), default=None),
        "strict_positive_min": min((v for v in values if v > 0), default=None),
        "mean": None,
        "std": None,
    }
    if values:
        mean = Fraction(sum(values)) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        found |= {"mean": float(mean), "std": math.sqrt(variance)}
    return {
        name: v if v is None or (integral and isinstance(v, int)) else float(v)
        for name, v in found.items()
    }


def _same_statistics(answer: Any, expected: dict[str, int | float | None]) -> bool:
    if not isinstance(answer, dict) or answer.keys() != expected.keys():
        return False
    largest = max(abs(expected["min"] or 0), abs(expected["max"] or 0))
    for name, value in expected.items():
        given = answer[name]
        if name in {"mean", "std"} and None not in (value, given):
            if not math.isclose(given, value or 0.0, rel_tol=1e-12, abs_tol=1e-15 * largest):
                return False
        elif given != value:
            return False
    return True


@each_file
async def test_paths(zoo: Path, zoo_app: Any, file: str) -> None:
    findings = Findings(file)
    async with client(zoo_app) as asker:
        for entity in oracle.read(zoo, file):
            answer = await _ask(asker, "/paths", file, path=entity.path)
            if entity.kind != "group":
                good = answer.status_code == 422 and bool(answer.json()["message"])
                findings.check(good, ("/paths", entity.path), answer, 422)
                continue
            expected = entity.below
            given = _json(answer)
            good = isinstance(given, list) and given[:1] == [entity.path]
            good = good and sorted(given) == sorted(expected)
            findings.check(good, ("/paths", entity.path), answer, expected)
    findings.report()


@pytest.mark.parametrize("file", ["types.h5", "attributes.h5", "links.h5", "nexus.nxs"])
async def test_metadata_as_msgpack(zoo: Path, zoo_app: Any, file: str) -> None:
    """`/meta`, `/stats` and `/paths` say in msgpack what they say in JSON."""
    findings = Findings(file)
    accept = {"accept": "application/vnd.msgpack"}
    async with client(zoo_app) as asker:
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
                    and _unpack(answer) == as_json.json()
                )
                findings.check(good, (route, entity.path), answer, as_json.text)
    findings.report()


async def test_attributes_as_msgpack(zoo: Path, zoo_app: Any) -> None:
    """Numeric attributes are arrays that `msgpack-numpy` decodes."""
    accept = {"accept": "application/vnd.msgpack"}
    async with client(zoo_app) as asker:
        answer = await asker.get("/attr", params={"file": "attributes.h5"}, headers=accept)
    given = _unpack(answer)
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
    async with client(zoo_app) as asker:
        answer = await asker.get("/data", params=params)
    assert answer.status_code == 200
    disposition = answer.headers["content-disposition"]
    assert disposition.isprintable()
    assert disposition.isascii()
    if name.isprintable() and not set(name) & set("\\/%\"<>?:*|;'#& .+="):
        assert quote(name) in disposition


async def test_accept_chooses_the_format(zoo_app: Any) -> None:
    params = {"file": "layouts.h5", "path": "/contiguous"}
    async with client(zoo_app) as asker:
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
    async with client(zoo_app) as asker:
        answer = await _ask(asker, "/meta", awkward.FILE)
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
                answer = await _ask(asker, route, awkward.FILE, path=f"/{name}")
                assert answer.status_code in {200, 404, 422, 501}, (route, name, answer.text)
        paths = await _ask(asker, "/paths", awkward.FILE)
        assert paths.status_code == 200
        assert "/plain" in paths.json()
        attributes = await _ask(asker, "/attr", awkward.FILE, attr_keys="plain")
        assert attributes.json() == {"plain": 1}


async def test_what_only_the_low_level_reads(zoo_app: Any) -> None:
    async with client(zoo_app) as asker:
        tagged = {"path": "/opaque_tagged"}
        answer = await _ask(asker, "/data", awkward.FILE, **tagged, format="bin")
        assert answer.content == awkward.TAGGED.tobytes(), answer.text
        answer = await _ask(asker, "/data", awkward.FILE, **tagged)
        assert answer.json() == [oracle.text(bytes(item)) for item in awkward.TAGGED.tolist()]
        answer = await _ask(asker, "/data", awkward.FILE, path="/enum_all_bits")
        assert answer.json() == [2**64 - 1] * 4
        answer = await _ask(asker, "/data", awkward.FILE, path="/bits_8_big")
        assert answer.json() == [0, 1, 128, 255]
