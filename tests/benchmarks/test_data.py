"""What is asked for, the seeded data, and which turns and rows a run has."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.hdf5.plan import parse_selection
from benchmarks.data import DataFolder, Place
from benchmarks.kinds import arrays, large, nexus
from benchmarks.load import AsyncioLoad
from benchmarks.question import H5GROVE, Figure, Question
from benchmarks.questions import QUESTIONS, session
from benchmarks.run import FULL, QUICK, list_shown

LENGTH = 20
members = st.integers(0, LENGTH - 1) | st.builds(
    slice,
    st.none() | st.integers(0, LENGTH - 1),
    st.none() | st.integers(1, LENGTH),
    st.none() | st.integers(1, 5),
)


@given(st.tuples(members, members))
def test_a_selection_is_asked_for_as_numpy_takes_it(chosen: tuple[int | slice, ...]) -> None:
    target = Place("a.h5", "/b", chosen).target("/data")
    text = target.partition("selection=")[2].replace("%2C", ",").replace("%3A", ":")
    values = np.zeros((LENGTH, LENGTH))
    assert parse_selection(text, values.shape).shape == values[chosen].shape


def test_data_are_made_once_and_never_half(tmp_path: Path) -> None:
    made = []

    def write(folder: Path, random: np.random.Generator) -> None:
        made.append(int(random.integers(1 << 30)))
        (folder / "file").write_text("whole")

    def fail(folder: Path, _: np.random.Generator) -> None:
        (folder / "file").write_text("half")
        raise OSError

    data = DataFolder(tmp_path / "one")
    with pytest.raises(OSError):  # noqa: PT011  # the one above, without a message
        data.require("kind", fail)
    for _ in range(2):
        data.require("kind", write)
    assert (data.root / "kind" / "file").read_text() == "whole"
    DataFolder(tmp_path / "two").require("kind", write)
    assert made == [made[0]] * 2


def test_the_files_are_read_whole_before_anybody_is_asked(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    (data.root / "x.h5").write_bytes(b"x" * 100)
    data.bring_to_memory([Place("x.h5", "/a"), Place("x.h5", "/b")])
    with pytest.raises(FileNotFoundError):
        data.bring_to_memory([Place("y.h5", "/a")])


def test_boxes_lie_anywhere_in_the_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_VOLUME", (8, 1024, 1024))
    monkeypatch.setattr(arrays, "_VOLUME_CHUNKS", (4, 512, 512))
    data = DataFolder(tmp_path)
    place = arrays.volume(data)
    with h5py.File(data.file(place), "r") as file:
        assert file[place.path].chunks == (4, 512, 512)
        assert file[place.path].shape == (8, 1024, 1024)
    monkeypatch.setattr(arrays, "_VOLUME", (16, 1024, 1024))
    places = arrays.slabs(data)
    assert len({str(each.selection) for each in places}) == arrays.PICKS


def test_each_of_many_chunks_is_asked_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "CHUNK_COUNTS", (100, 1000))
    data = DataFolder(tmp_path)
    for chunks, places in zip((100, 1000), large.many_chunks(data), strict=True):
        with h5py.File(data.file(places[0]), "r") as file:
            assert file["curve"].id.get_num_chunks() == chunks
        assert {data.read(place).shape for place in places} == {(16,)}


@pytest.mark.parametrize("question", QUESTIONS, ids=[each.name for each in QUESTIONS])
def test_a_question_measures_asgihive_and_all_peers_of_its_figures(question: Question) -> None:
    assert "asgihive" in question.servers
    named = [
        name
        for figure in question.figures
        for names in (figure.stages or [[figure.peer]])
        for name in names
    ]
    assert set(named) <= {*question.servers, H5GROVE}
    assert len({(figure.name, figure.peer) for figure in question.figures}) == len(question.figures)


def test_names_of_questions_differ() -> None:
    assert len({each.name for each in QUESTIONS}) == len(QUESTIONS)


Sessions = Sequence[Sequence[Place]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def sessions(data: DataFolder) -> Sessions:
    """The files of each turn of a session, of which all would take seconds to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nexus, "SESSIONS", 2)
        patch.setattr(nexus, "FILES", 3)
        return nexus.make_nexus_files(data)


def test_each_turn_of_a_session_has_files_of_its_own(data: DataFolder, sessions: Sessions) -> None:
    assert [len(roots) for roots in sessions] == [3, 3]
    assert len({root.file for roots in sessions for root in roots}) == 2 * 3
    assert FULL.turns + 1 == nexus.SESSIONS
    for root in sessions[0]:
        requests = session.list_requests(data, root)
        counts = Counter(request.figure for request in requests)
        assert counts[session.FIRST] == 1
        assert counts[session.META] == counts[session.ATTR] == nexus.ENTITIES
        assert counts[session.VALUES] > nexus.ENTITIES / 2
        assert len({request.target for request in requests}) == len(requests)
        assert {request.is_json for request in requests} == {False, True}


def test_nexus_files_hold_each_kind_of_storage_and_text(
    data: DataFolder, sessions: Sessions
) -> None:
    found = set()

    def add(_: str, entity: h5py.Group | h5py.Dataset) -> None:
        if isinstance(entity, h5py.Group):
            found.add(entity.attrs.get_id("NX_class").dtype.kind)
        else:
            found.add((entity.dtype.kind, entity.ndim > 0, entity.compression))

    with h5py.File(data.file(sessions[0][0]), "r") as file:
        file.visititems(add)
    assert {"S", "O", ("f", True, None), ("i", True, "gzip"), ("O", False, None)} <= found


def test_heavy_questions_are_left_out_of_a_quick_run() -> None:
    load = AsyncioLoad()
    for question in QUESTIONS:
        assert QUICK.takes(question) is not question.heavy
        turns = FULL.list_turns(question, load)
        assert [turn.number for turn in turns] == list(range(3 if question.heavy else 5))
        assert [turn.number for turn in turns if turn.probe] == [0]
        assert not any(turn.probe for turn in QUICK.list_turns(question, load))


def test_rows_of_peers_that_are_not_there_are_left_out() -> None:
    figures = [
        Figure(name=name, unit="/s", better="higher", peer=peer)
        for name, peer in (("a", "one"), ("a", "two"), ("b", "two"), ("b", "three"))
    ]
    assert list(list_shown(figures, ["asgihive", "one"])) == [figures[0], figures[2]]
    assert list(list_shown(figures, ["two"])) == figures[1:3]


def test_a_ceiling_in_stages_needs_a_server_of_each_stage() -> None:
    stages = (("decoders",), ("nginx", "contiguous"))
    figure = Figure(name="a", unit="/s", better="higher", peer="in series", stages=stages)
    other = Figure(name="a", unit="/s", better="higher", peer="one")
    assert list(list_shown([other, figure], ["one", "decoders", "contiguous"])) == [other, figure]
    assert list(list_shown([other, figure], ["one", "decoders"])) == [other]
