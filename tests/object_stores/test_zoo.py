"""Every file of the zoo in an S3 server: the answers are those of the same files in a directory."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import h5py
import pytest

from asgihive.service import H5App
from tests import zoo
from tests.asgi.exchange import Exchange, http, run
from tests.fuzz.asking import Effort
from tests.fuzz.questions import Question, about_entities, about_store, opening
from tests.fuzz.runs import fuzz
from tests.object_stores.conftest import Bucket, name_server
from tests.zoo import awkward, forged

pytestmark = pytest.mark.anyio

FILES = (*zoo.FILES, awkward.FILE)

ABOUT_EACH = 12
"""Questions about a file in the fast test, beside those that open it."""

VERSION = re.compile(rb'"_asgihive_version":"[0-9a-f]+"')
"""What the metadata of a Zarr store say of the file's inode and times."""

DAMAGED = 100
"""Damaged copies of files."""

EXTERNAL = "layouts.h5", "/external_storage"
"""Its values are in a file that it names by an absolute path, and no store has such paths."""

TOLD_OF_THE_CONTENT = {"etag", "last-modified", "server-timing", "date", "cache-control"}
"""Headers that say which content it is, which is another one in a store."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo."""
    root: Path = tmp_path_factory.mktemp("zoo")
    zoo.build(root)
    return root


@pytest.fixture(scope="module")
def forged_files(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Files in the same directory that were forged so that libhdf5 would open others by itself."""
    outside: Path = tmp_path_factory.mktemp("outside")
    with h5py.File(outside / "secret.h5", "w") as file:
        file["secret"] = 42
    return forged.write(root, outside)


@pytest.fixture(scope="module")
def url(root: Path, forged_files: tuple[str, ...], s3_port: int) -> Iterator[str]:
    """The URL of a bucket with the same files."""
    with pytest.MonkeyPatch.context() as patch:
        name_server(patch, s3_port)
        bucket = Bucket(s3_port)
        for each in root.rglob("*"):
            if each.is_file():
                bucket.put(each.relative_to(root).as_posix(), each.read_bytes())
        yield bucket.url


@pytest.fixture(scope="module")
def stored(url: str) -> H5App:
    """A service over the bucket."""
    return H5App(url)


@pytest.fixture(scope="module")
def local(root: Path, forged_files: tuple[str, ...]) -> H5App:
    """A service over the directory."""
    return H5App(root)


def find_paths(file: Path) -> list[str]:
    """What h5py finds in a file, links to nothing included."""
    names: list[bytes] = []
    with h5py.File(file, locking=False) as opened:
        if file.name.startswith("forged_"):  # links that h5py does not follow
            names += [each.encode() for each in opened]
        else:
            opened.id.links.visit(names.append)
        return ["/", *("/" + name.decode("utf-8", "surrogateescape") for name in names)]


async def ask(app: H5App, question: Question) -> Exchange:
    return await run(app, http(question.route, query_string=question.query_string.encode()))


def told(answer: Exchange) -> tuple[int, dict[bytes, bytes], bytes]:
    """What two answers to a question have in common, wherever the file lies."""
    headers = {
        name: value
        for name, value in answer.sent[0]["headers"]
        if name.decode() not in TOLD_OF_THE_CONTENT
    }
    return answer.status, headers, VERSION.sub(b"", answer.body)


async def compare(stored: H5App, local: H5App, questions: list[Question]) -> None:
    wrong = []
    for question in questions:
        here, there = told(await ask(local, question)), told(await ask(stored, question))
        assert there[0] < 500 or there[0] == here[0], (str(question), there)
        if here != there:
            wrong.append((str(question), here, there))
    assert not wrong, (len(wrong), wrong[:5])


def list_questions(root: Path, file: str, most: int) -> list[Question]:
    paths, chance = find_paths(root / file), random.Random(file)
    paths = [each for each in paths if (file, each) != EXTERNAL]
    return [
        *opening(file),
        *about_entities(file, paths, chance, most),
        *about_store(file, paths, chance, most // 3),
    ]


@pytest.mark.parametrize(
    ("file", "most"),
    [
        *(pytest.param(each, ABOUT_EACH, id=f"{each}-some") for each in FILES),
        *(pytest.param(each, 400, id=f"{each}-much", marks=pytest.mark.slow) for each in FILES),
    ],
)
async def test_answers_are_those_of_a_directory(
    root: Path, stored: H5App, local: H5App, file: str, most: int
) -> None:
    questions = await anyio.to_thread.run_sync(list_questions, root, file, most)
    await compare(stored, local, questions)


async def test_values_elsewhere_on_the_machine_that_wrote_them(stored: H5App) -> None:
    file, path = EXTERNAL
    shape = await ask(stored, Question("/meta", {"file": file, "path": path}))
    values = await ask(stored, Question("/data", {"file": file, "path": path}))
    assert shape.status == 200
    assert values.status == 404
    assert "is not in the served directory" in values.json["message"]


async def test_forged_files_are_refused_as_in_a_directory(
    root: Path, stored: H5App, local: H5App, forged_files: tuple[str, ...]
) -> None:
    for file in forged_files:
        questions = await anyio.to_thread.run_sync(list_questions, root, file, 100)
        await compare(stored, local, questions)


@pytest.mark.slow
def test_damaged_copies_get_answers_of_the_contract(root: Path, url: str) -> None:
    report = fuzz(root, 0, DAMAGED, Effort(requests=10, url=url), jobs=2)
    print(report)
    assert not report.failures, str(report)
    assert report.mutants == DAMAGED
    # They are neither so damaged that nothing is read, nor so little that all is.
    assert report.statuses["200"] > DAMAGED
    assert report.statuses["422"] > DAMAGED
