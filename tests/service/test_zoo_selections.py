"""Selections of every dataset of the zoo, and of any text, against NumPy on the whole array."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.efforts import at_most
from tests.zoo import oracle, selections
from tests.zoo.bodies import same_bin
from tests.zoo.client import Asker
from tests.zoo.findings import Findings, ask, document, each_content, each_storage, one_in
from tests.zoo.oracle import Entity, same_json

pytestmark = pytest.mark.anyio


@each_content
@one_in(4)
async def test_selections(zoo: Path, zoo_app: Any, file: str, step: int) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    everything = [
        (entity, turn, *each)
        for entity in oracle.datasets(zoo, file)
        if entity.shape is not None
        for turn, each in enumerate(selections.fitting(entity.shape))
    ]
    for entity, turn, selection, index in everything[::step]:
        asked = {"path": entity.path, "selection": selection}
        expected = np.asarray(entity.value, _holder(entity))[index]
        if turn % 2:
            asked["flatten"], expected = "yes", oracle.flattened(expected)
        answer = await ask(asker, "/data", file, **asked)
        findings.check(same_json(document(answer), expected), asked, answer, expected)
    # One dataset of each shape.
    for shape, path in {entity.shape: entity.path for entity, *_ in everything}.items():
        for selection in selections.impossible(shape or ()):
            asked = {"path": path, "selection": selection}
            answer = await ask(asker, "/data", file, **asked)
            good = answer.status_code == 422 and "selection" in answer.json()["message"]
            findings.check(good, asked, answer, 422)
    findings.report()


def _holder(entity: Entity) -> Any:
    """Scalars of Python objects stay such when NumPy wraps them."""
    return object if entity.dtype is not None and entity.dtype.kind == "O" else None


@each_storage
@one_in(4)
async def test_selected_bytes(zoo: Path, zoo_app: Any, file: str, step: int) -> None:
    findings = Findings(file)
    asker = Asker(zoo_app)
    everything = [
        (entity.path, np.asarray(entity.value), entity.dtype.base, *each)
        for entity in oracle.datasets(zoo, file)
        if entity.shape is not None and entity.dtype is not None and oracle.is_numeric(entity.dtype)
        for each in selections.fitting(entity.shape)
    ]
    for path, values, dtype, selection, index in everything[::step]:
        asked = {"path": path, "selection": selection, "format": "bin"}
        answer = await ask(asker, "/data", file, **asked)
        # A single element keeps the byte order that NumPy's scalars lose.
        expected = np.asarray(values[index], dtype)
        good = answer.status_code == 200 and same_bin(answer, expected)
        findings.check(good, asked, answer, expected)
    findings.report()


SHAPES = ((), (5,), (3, 4), (2, 1, 3), (2, 3, 2, 2))


@pytest.fixture(scope="session")
def shapes_app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service over one dataset of each of `SHAPES`, contiguous and, where it can be, chunked."""
    from asgihive.service import H5App  # noqa: PLC0415  # as `zoo_app`

    root = tmp_path_factory.mktemp("shapes")
    with h5py.File(root / "shapes.h5", "w") as file:
        for shape in SHAPES:
            name = "x".join(map(str, shape)) or "scalar"
            values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
            file[name] = values
            if shape:
                chunks = tuple(min(2, extent) for extent in shape)
                file.create_dataset(f"{name}_chunked", data=values, chunks=chunks)
    return H5App(root)


@given(
    shape=st.sampled_from(SHAPES),
    chunked=st.booleans(),
    text=selections.texts,
    flatten=st.booleans(),
)
@settings(
    max_examples=at_most(300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.slow_on_trio
async def test_any_selection(
    shapes_app: Any, shape: tuple[int, ...], chunked: bool, text: str, flatten: bool
) -> None:
    """NumPy's values or a 422; what the grammar has and NumPy accepts is never refused."""
    name = "x".join(map(str, shape)) or "scalar"
    path = f"/{name}_chunked" if chunked and shape else f"/{name}"
    params = {"file": "shapes.h5", "path": path, "selection": text, "flatten": str(flatten)}
    asker = Asker(shapes_app)
    answer = await asker.get("/data", params=params)
    try:
        expected = np.arange(np.prod(shape, dtype=int)).reshape(shape)[selections.numpy_index(text)]
    except (ValueError, IndexError):
        assert answer.status_code == 422, answer.text
        return
    if answer.status_code == 422:
        assert not selections.plain(text)
        return
    assert answer.status_code == 200
    assert same_json(answer.json(), oracle.flattened(expected) if flatten else expected)
