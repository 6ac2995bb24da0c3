"""schemathesis against the service over a real server: nothing that its document does not say.

`ASGIHIVE_SCHEMATHESIS_EXAMPLES` is the number of requests per route of the long run.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from asgihive.service import H5App
from asgihive.settings import H5Settings
from tests.service.servers import client, serving

FEW = 2
ENOUGH = 12  # for an answer that is likely
MANY = int(os.environ.get("ASGIHIVE_SCHEMATHESIS_EXAMPLES", "150"))

WITHOUT_PARAMETERS = ("/", "/health", "/metrics")
ENDLESS = ("/events",)  # which `tests/viewer/test_events.py` asks
WITH_PARAMETERS = (
    *("/meta", "/attr", "/paths", "/data", "/stats", "/histogram", "/files", "/file"),
    *("/image", "/plot"),
    *("/file/{path}", "/zarr/{path}", "/batch"),
)

# Any text may be the rest of a path.
REFUSING = tuple(each for each in WITH_PARAMETERS if "{" not in each)

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]

# Of them the contract says what they mean; a damaged chunk (500) is not in the zoo.
SERVER_ERRORS = {501, 503, 504}

# What is there, or is no such thing, where schemathesis would think of nonsense alone.
LIKELY: dict[str, list[Any]] = {
    "file": ["layouts.h5", "earliest.h5", "latest.h5", "links.h5", "no.h5", "../outside.h5"],
    "path": ["/", "contiguous", "/chunked_edges", "/growing", "/spaces/shape_3x4x5", "/no"],
    "selection": ["", "0", "...", "1:3,:", ":,0,::2", "-1", "99", "x"],
    "range": [[0, 1000], [-1.5, 2]],
    "cmap": ["gray", "inferno_r", "virids"],
    "nan": ["red", "#10203040"],
    "max_points": [1, 10, 1000],
    "fields": [[], ["a"], ["a,b", "c"]],
    "dir": ["", "sources", "no"],
    "zarr": [
        f"{file}{node}/{key}"
        for file in ("layouts.h5", "earliest.h5", "links.h5.zarr", "no.h5")
        for node in ("", "/contiguous", "/growing", "/spaces/shape_3x4x5", "/no")
        for key in ("zarr.json", ".zgroup", "c/0", "c/0/0", "c/0/0/0", "c/9/9", "c/x")
    ],
    "v": ["0" * 32],
    "after": ["", "bGlua3MuaDU", "?"],
    "If-Match": ["*"],
    "If-Unmodified-Since": ["Fri, 31 Dec 2100 23:59:59 GMT"],
    "Range": ["bytes=0-3", "bytes=-5", "bytes=999999999-"],
}

# It is not accepted together with another one, which is as likely.
UNLIKELY = {"shape"}


@pytest.fixture(scope="module")
def url(zoo: Path) -> Iterator[str]:
    app = H5App(zoo, H5Settings(max_response_bytes=1 << 20))
    with serving(app, "uvicorn-httptools") as url:
        yield url


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    with client(url) as asker:
        return asker.get("/openapi.json").json()


def _narrowed(document: Any) -> Any:
    """As if the document knew what is there."""
    narrowed = copy.deepcopy(document)
    for path, item in narrowed["paths"].items():
        for operation in item.values():
            given = operation["parameters"]
            given[:] = [each for each in given if each["name"] not in UNLIKELY]
            for parameter in given:
                likely = parameter["name"]
                if parameter["in"] == "path":
                    likely = "zarr" if path.startswith("/zarr") else "file"
                if likely in LIKELY:
                    # Its type says how a list is written.
                    kind, values = parameter["schema"].get("type", "string"), LIKELY[likely]
                    if kind == "array" and not isinstance(values[0], list):
                        values = [[each] for each in values]
                    parameter["schema"] = {"type": kind, "enum": values}
                if parameter["name"] == "path":
                    parameter["required"] = True
    return narrowed


def _agrees(url: str, document: Any, path: str, mode: GenerationMode, examples: int) -> set[int]:
    """The statuses that `path` answers to generated requests, each held against the document."""
    load_all_checks()
    schema = schemathesis.openapi.from_dict(document)
    operation = schema[path]["POST" if path == "/batch" else "GET"]
    seen = set()

    @settings(
        max_examples=examples,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        answer = case.call_and_validate(base_url=url, checks=CHECKS)
        assert answer.status_code < 500 or answer.status_code in SERVER_ERRORS, answer.text
        seen.add(answer.status_code)

    ask()
    return seen


@pytest.mark.parametrize("path", [*WITHOUT_PARAMETERS, *WITH_PARAMETERS])
def test_a_few_good_requests(url: str, document: Any, path: str) -> None:
    assert _agrees(url, _narrowed(document), path, GenerationMode.POSITIVE, FEW)


@pytest.mark.parametrize("path", REFUSING)
def test_a_few_bad_requests(url: str, document: Any, path: str) -> None:
    assert _agrees(url, document, path, GenerationMode.NEGATIVE, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_many_requests(url: str, document: Any, path: str) -> None:
    seen = _agrees(url, _narrowed(document), path, GenerationMode.POSITIVE, MANY)
    assert 200 in seen
    assert _agrees(url, document, path, GenerationMode.POSITIVE, MANY)
    if path in REFUSING:
        assert _agrees(url, document, path, GenerationMode.NEGATIVE, MANY)


def test_every_path_is_asked(document: Any) -> None:
    assert document["paths"].keys() == {*WITHOUT_PARAMETERS, *WITH_PARAMETERS, *ENDLESS}


def test_an_answer_that_is_not_described_is_found(url: str, document: Any) -> None:
    """As if the document knew no 404."""
    operation = copy.deepcopy(document["paths"]["/stats"]["get"])
    del operation["responses"]["404"]
    wrong = {**document, "paths": {"/stats": {"get": operation}}}
    with pytest.raises(FailureGroup, match="Undocumented status code"):
        _agrees(url, wrong, "/stats", GenerationMode.POSITIVE, ENOUGH)
