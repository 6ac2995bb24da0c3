"""The same requests to h5grove 4, key by key, wherever h5grove answers as it should.

Both serve their own copy of the zoo: h5grove opens files with locks, asgihive without, and
libhdf5 refuses to have one file open in both ways.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import orjson
import pytest
import tifffile

from asgihive.padding import has_padding
from tests import zoo as animals
from tests.zoo import FILES, oracle
from tests.zoo.bodies import has_cells
from tests.zoo.client import Asker
from tests.zoo.oracle import Entity

content = pytest.importorskip("h5grove.content")
encoders = pytest.importorskip("h5grove.encoders")

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def grove(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grove")
    animals.build(root)
    return root


@dataclass(frozen=True, slots=True)
class Request:
    """One request to both servers; `entity` is what h5py says about its path."""

    route: str
    file: str
    entity: Entity
    parameters: dict[str, str]


def _is_stats_of_integers(request: Request) -> bool:
    dtype = request.entity.dtype
    return request.route == "/stats" and dtype is not None and dtype.base.kind in "biu"


def _is_stats_of_floats(request: Request) -> bool:
    dtype = request.entity.dtype
    return request.route == "/stats" and dtype is not None and dtype.base.kind == "f"


def _is_bin_of_objects(request: Request) -> bool:
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") == "bin"
    return wanted and dtype is not None and (dtype.hasobject or request.entity.shape is None)


def _is_tiff_of_other_dimensions(request: Request) -> bool:
    shape = request.entity.shape if request.entity.kind == "dataset" else None
    wanted = request.parameters.get("format") == "tiff"
    return wanted and shape is not None and (len(shape) not in {2, 3} or 0 in shape)


def _is_tiff_of_other_types(request: Request) -> bool:
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") == "tiff"
    return wanted and dtype is not None and (dtype.base.kind in "bc" or dtype.base.itemsize > 8)


def _is_single_big_endian(request: Request) -> bool:
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") == "bin" and "selection" in request.parameters
    return wanted and dtype is not None and dtype.base.byteorder == ">"


def _is_single_fixed_string(request: Request) -> bool:
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") == "bin"
    return wanted and dtype is not None and dtype.base.kind == "S"


def _is_single_sequence(request: Request) -> bool:
    dtype = request.entity.dtype
    return dtype is not None and dtype.hasobject and request.entity.shape == ()


def _is_nothing(request: Request) -> bool:
    if request.entity.kind != "dataset":
        return False
    empty = request.entity.shape is None or 0 in request.entity.shape
    return empty and (request.route == "/stats" or request.parameters.get("dtype") == "safe")


def _is_opaque_time(request: Request) -> bool:
    return request.entity.dtype is not None and request.entity.dtype.kind == "M"


def _is_sequence_of_big_endian(request: Request) -> bool:
    dtype = request.entity.dtype
    element = None if dtype is None else h5py.check_vlen_dtype(dtype)
    return isinstance(element, np.dtype) and not element.isnative


def _is_table_of_other_types(request: Request) -> bool:
    """Which asgihive writes and h5grove refuses, since they are not numbers."""
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") in {"npy", "csv"}
    is_number = dtype is not None and oracle.is_numeric(dtype)
    return wanted and dtype is not None and not is_number and has_cells(dtype)


def _is_bin_with_padding(request: Request) -> bool:
    dtype = request.entity.dtype
    wanted = request.parameters.get("format") == "bin"
    return wanted and dtype is not None and has_padding(dtype)


# Where the two may differ, and why: the body of such an answer is not compared.
DEFECTS: tuple[tuple[str, Callable[[Request], bool]], ...] = (
    ("mean and std of integers are truncated to int", _is_stats_of_integers),
    ("mean and std are summed in the dataset's own precision", _is_stats_of_floats),
    ("object pointers are sent for bytes", _is_bin_of_objects),
    ("elements of sequences are taken for native ones", _is_sequence_of_big_endian),
    ("tiff of 1, 4 and more dimensions and of nothing", _is_tiff_of_other_dimensions),
    ("tiff of types that TIFF has no sample format for", _is_tiff_of_other_types),
    ("a single big-endian element is sent in the server's byte order", _is_single_big_endian),
    ("a single fixed-length string is sent without its padding", _is_single_fixed_string),
    ("the values of a single sequence are taken for a dataset", _is_single_sequence),
    ("what no values are converted to, or what their statistics are", _is_nothing),
    ("the padding of compounds is what lay in memory", _is_bin_with_padding),
    ("npy and csv of compounds and text are refused", _is_table_of_other_types),
    ("datetime64 is ISO text, the contract says bytes as text", _is_opaque_time),
)


def _requests(root: Path, file: str) -> Iterator[Request]:
    for entity in oracle.read(root, file):
        for resolve in ("only_valid", "none", "all", "true", "False"):
            yield Request("/meta", file, entity, {"resolve_links": resolve})
            if entity.kind == "group":
                yield Request("/paths", file, entity, {"resolve_links": resolve})
        yield Request("/attr", file, entity, {})
        if entity.kind != "dataset":
            continue
        for dtype in ("origin", "safe", "float33"):
            for format_ in ("json", "bin", "npy", "csv", "tiff", "yaml"):
                yield Request("/data", file, entity, {"format": format_, "dtype": dtype})
        yield Request("/data", file, entity, {"flatten": "true"})
        yield Request("/stats", file, entity, {})
        yield from _selected(file, entity)


def _selected(file: str, entity: Entity) -> Iterator[Request]:
    if not entity.shape:
        return
    whole = ",".join([":"] * len(entity.shape))
    first = ",".join("0" * len(entity.shape))
    for selection in (whole, "0" + whole[1:], first, "::2", "-1:", "1:1"):
        for more in ({"format": "bin"}, {"flatten": "true"}, {}):
            yield Request("/data", file, entity, {"selection": selection, **more})


class Refused(Exception):
    """h5grove's own errors, which its servers turn into a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    media_type: str = "application/json"
    body: bytes = b"null"


def _h5grove(root: Path, request: Request) -> Answer | None:
    """What h5grove's servers answer; None where they answer 500."""
    try:
        encoded = _h5grove_content(root, request)
    except Refused as refused:
        return Answer(refused.status)
    except Exception:  # noqa: BLE001  # whatever it is, it is a 500
        return None
    return Answer(200, encoded.headers["Content-Type"], encoded.content)


def _h5grove_content(root: Path, request: Request) -> Any:
    """As `h5grove.fastapi_utils` does, without the threads and the HTTP around it."""
    file, path, given = root / request.file, request.entity.path, request.parameters
    resolve = given.get("resolve_links")
    if request.route == "/paths":
        with content.get_list_of_paths(file, path, Refused, resolve) as paths:
            return encoders.encode(paths, "json")
    with content.get_content_from_file(file, path, Refused, resolve) as found:
        if request.route == "/meta":
            return encoders.encode(found.metadata(), "json")
        if request.route == "/attr":
            return encoders.encode(found.attributes(), "json")
        selection = given.get("selection")
        if request.route == "/stats":
            return encoders.encode(found.data_stats(selection), "json")
        data = found.data(selection, "flatten" in given, given.get("dtype"))
        return encoders.encode(data, given.get("format"))


# One in so many, of which each comes with every other parameter somewhere in the file.
SOME = 13


@pytest.mark.parametrize("anyio_backend", [("asyncio", {})], ids=["asyncio"], indirect=True)
@pytest.mark.parametrize("step", [SOME, pytest.param(1, marks=pytest.mark.slow)], ids=["", "all"])
@pytest.mark.parametrize("file", FILES)
async def test_same_answers(zoo: Path, zoo_app: Any, grove: Path, file: str, step: int) -> None:
    differing = []
    asker = Asker(zoo_app)
    for request in itertools.islice(_requests(zoo, file), None, None, step):
        expected = _h5grove(grove, request)
        if request.entity.link.get("target_file", "").startswith(str(zoo)):
            continue  # a link by absolute path, so to the other copy
        if expected is None or any(applies(request) for _, applies in DEFECTS):
            continue
        params = {"file": file, "path": request.entity.path, **request.parameters}
        answer = await asker.get(request.route, params=params)
        if not _same(answer, expected, request):
            given = f"{answer.status_code} {answer.content[:200]!r}"
            wanted = f"{expected.status} {expected.body[:200]!r}"
            differing.append(f"{request.route} {params!s:.300}: {given}, h5grove {wanted}")
    shown = "\n".join(differing[:30])
    assert not differing, f"{len(differing)} answers differ:\n{shown}"


def _same(answer: httpx.Response, expected: Answer, request: Request) -> bool:
    if answer.status_code != expected.status:
        return False
    if expected.status != 200:
        return set(answer.json()) - {"errors"} == {"message"}
    if answer.headers["content-type"].split(";")[0] != expected.media_type:
        return False
    if expected.media_type == "application/json":
        ours, theirs = answer.json(), orjson.loads(expected.body)
        return bool(ours == theirs) or (_may_round(request) and _rounded(ours) == _rounded(theirs))
    if expected.media_type == "image/tiff":
        first, second = (tifffile.imread(io.BytesIO(b)) for b in (answer.content, expected.body))
        # The byte order is the file's own; one page may come with or without its dimension.
        return first.dtype.newbyteorder("=") == second.dtype.newbyteorder("=") and np.array_equal(
            first.ravel(), second.ravel(), equal_nan=first.dtype.kind == "f"
        )
    return _same_bytes(answer.content, expected.body, request)


def _same_bytes(ours: bytes, theirs: bytes, request: Request) -> bool:
    """Equal, but for the six bytes behind an 80-bit float: the file's own, meaning nothing."""
    dtype = request.entity.dtype
    padded = "G" if request.parameters.get("dtype") == "safe" else "gG"
    if dtype is None or dtype.base.char not in padded or len(ours) != len(theirs):
        return ours == theirs
    length = len(theirs) // 16 * 16
    first, second = (np.frombuffer(each[-length:], np.longdouble) for each in (ours, theirs))
    return np.array_equal(first, second, equal_nan=True)


def _may_round(request: Request) -> bool:
    """Whether the values are of single precision: h5grove writes 0.1 or 0.10000000149011612."""
    dtype = request.entity.dtype
    if request.route == "/attr" or (dtype is not None and dtype.kind == "V"):
        return True
    single = {"f": 4, "c": 8}
    return dtype is not None and dtype.base.itemsize <= single.get(dtype.base.kind, 0)


def _rounded(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _rounded(each) for name, each in document.items()}
    if isinstance(document, list):
        return [_rounded(each) for each in document]
    return float(np.float32(document)) if isinstance(document, float) else document
