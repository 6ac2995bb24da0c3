"""Virtual datasets: libhdf5's own reading of the same files is the oracle."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgihive.errors import (
    AsgihiveError,
    FileMissing,
    KindMismatch,
    SourceRefused,
    TypeUnsupported,
)
from asgihive.hdf5.hyperslabs import RegularIndices
from asgihive.hdf5.opening import find_dataset
from asgihive.hdf5.plan import Axis, parse_selection, select_all
from asgihive.hdf5.virtual import Mapping
from tests.efforts import at_most
from tests.hdf5.serving import dataset_of, described, leased, selected, values
from tests.hdf5.strategies import selections

Shape = tuple[int, ...]
Regular = tuple[Shape, Shape, Shape, Shape]  # start, stride, count, block of every dimension

U = h5s.UNLIMITED


@dataclass(frozen=True)
class Pair:
    """A mapping to write, and the extent that its source really has."""

    virtual: Regular
    source: Regular
    source_extent: Shape
    whole_source: bool = False


def extent_of(regular: Regular) -> Shape:
    """The extent that the selection needs; one block of an unlimited one."""
    return tuple(
        start + (0 if count == U else (count - 1) * stride) + block
        for start, stride, count, block in zip(*regular, strict=True)
    )


@st.composite
def regular_lines(
    draw: st.DrawFn, length: int | None, *, source: bool = False
) -> tuple[int, int, int, int]:
    """Start, stride, count and block of one dimension, with `length` indices in all.

    Of a source, without gaps where it is unlimited: libhdf5 2.0 refuses to read others when
    the source ends in one, and may write beyond its own memory.
    """
    if length is None and source:
        return draw(st.integers(0, 3)), 1, U, 1
    if length is None:
        block = draw(st.integers(1, 3))
        count = U
    else:
        block = draw(st.sampled_from([b for b in range(1, length + 1) if length % b == 0]))
        count = length // block
    return draw(st.integers(0, 3)), block + draw(st.integers(0, 2)), count, block


def regular(lines: list[tuple[int, int, int, int]]) -> Regular:
    start, stride, count, block = (tuple(each) for each in zip(*lines, strict=True))
    return start, stride, count, block


@st.composite
def pairs(draw: st.DrawFn, rank: int, unlimited: int | None) -> Pair:
    """A mapping of `rank` dimensions, from a source that may have further ones of length 1."""
    lengths = [
        None if axis == unlimited else draw(st.sampled_from([1, 1, 2, 3, 4, 6]))
        for axis in range(rank)
    ]
    virtual = [draw(regular_lines(length)) for length in lengths]
    # Of equal rank where it is unlimited: libhdf5 2.0 reads others wrongly now and then.
    alike = unlimited is not None
    kept = [length for length in lengths if alike or length != 1 or draw(st.booleans())]
    added = 0 if alike else draw(st.integers(0, 2))
    places = [draw(st.integers(0, len(kept))) for _ in range(added)]
    for place in places or ([] if kept else [0]):
        kept.insert(place, 1)
    source = regular([draw(regular_lines(length, source=True)) for length in kept])
    extent = tuple(max(1, e + draw(st.integers(-2, 5))) for e in extent_of(source))
    if unlimited is None and draw(st.booleans()):
        # All of the source, which a file stores without its extent.
        whole = tuple(length or 1 for length in kept)
        zeros, ones = (0,) * len(whole), (1,) * len(whole)
        return Pair(regular(virtual), (zeros, ones, ones, whole), whole, whole_source=True)
    return Pair(regular(virtual), source, extent)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Pair], Shape, int | None]:
    rank = draw(st.integers(1, 3))
    unlimited = draw(st.none() | st.integers(0, rank - 1))
    # libhdf5 2.0 misplaces the values of several unlimited mappings, and may crash.
    most = 3 if unlimited is None else 1
    drawn = draw(st.lists(pairs(rank, unlimited), min_size=1, max_size=most))
    needed = [max(each) for each in zip(*(extent_of(pair.virtual) for pair in drawn), strict=True)]
    return drawn, tuple(each + draw(st.integers(0, 2)) for each in needed), unlimited


def space_of(shape: Shape, selected_part: Regular | None, unlimited: int | None = None) -> Any:
    most = tuple(U if axis == unlimited else extent for axis, extent in enumerate(shape))
    space = h5s.create_simple(shape, most)
    if selected_part is not None:
        start, stride, count, block = selected_part
        space.select_hyperslab(start, count, stride, block)
    return space


def create_virtual(
    file: h5py.File,
    name: str,
    mappings: list[tuple[Any, str, str, Any]],
    space: Any,
    fill: int = -9,
) -> None:
    """A virtual dataset of big-endian int32 from `(virtual space, file, dataset, source space)`."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_fill_value(np.array(fill, ">i4"))
    for virtual, source_file, dataset, source in mappings:
        properties.set_virtual(virtual, source_file.encode(), dataset.encode(), source)
    h5d.create(file.id, name.encode(), h5t.STD_I32BE, space, properties)


def write(root: Path, drawn: list[Pair], shape: Shape, unlimited: int | None) -> None:
    mappings = []
    for number, pair in enumerate(drawn):
        with h5py.File(root / f"source_{number}.h5", "w") as file:
            size = math.prod(pair.source_extent)
            content = np.arange(size, dtype=("<i8", ">f4", "u2")[number]) + 1000 * number
            file["data"] = content.reshape(pair.source_extent)
        declared = tuple(map(max, pair.source_extent, extent_of(pair.source)))
        source = None if pair.whole_source else pair.source
        mappings.append(
            (
                space_of(shape, pair.virtual, unlimited),
                f"source_{number}.h5",
                "data",
                space_of(declared, source),
            )
        )
    with h5py.File(root / "virtual.h5", "w") as file:
        create_virtual(file, "data", mappings, space_of(shape, None, unlimited))


def line(start: int, stride: int, count: int, block: int) -> list[int]:
    """The selected indices of one dimension, far enough where there is no end."""
    blocks = range(20 if count == U else count)
    return [start + number * stride + i for number in blocks for i in range(block)]


def expected_of(drawn: list[Pair], shape: Shape, unlimited: int | None) -> np.ndarray[Any, Any]:
    """The definition, element by element: both selections in C order, paired."""
    placed: dict[Shape, int] = {}
    reach = 0
    for number, pair in enumerate(drawn):
        virtual = [line(*each) for each in zip(*pair.virtual, strict=True)]
        source = [line(*each) for each in zip(*pair.source, strict=True)]
        if unlimited is not None:
            growing = pair.source[2].index(U)
            within = sum(i < pair.source_extent[growing] for i in source[growing])
            source[growing] = source[growing][:within]
            virtual[unlimited] = virtual[unlimited][:within]
            reach = max(reach, *(i + 1 for i in virtual[unlimited]), 0)
        content = np.arange(math.prod(pair.source_extent)).reshape(pair.source_extent)
        for target, origin in zip(
            itertools.product(*virtual), itertools.product(*source), strict=True
        ):
            if all(i < extent for i, extent in zip(origin, pair.source_extent, strict=True)):
                placed[target] = int(content[origin]) + 1000 * number
    if unlimited is not None:
        shape = (*shape[:unlimited], reach, *shape[unlimited + 1 :])
    expected = np.full(shape, -9, ">i4")
    for target, value in placed.items():
        expected[target] = value
    return expected


@settings(max_examples=at_most(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layouts(), st.data())
def test_regular_mappings_are_paired_in_c_order(
    tmp_path_factory: pytest.TempPathFactory,
    layout: tuple[list[Pair], Shape, int | None],
    data: st.DataObject,
) -> None:
    root = tmp_path_factory.mktemp("virtual")
    write(root, *layout)
    expected = expected_of(*layout)
    reach = [(pair.source_extent, extent_of(pair.source)) for pair in layout[0]]
    if layout[2] is None and all(np.all(np.greater_equal(*each)) for each in reach):
        # libhdf5 2.0 reads beyond the ends of shorter sources, misplaces the values of several
        # unlimited mappings, and may crash over either.
        np.testing.assert_array_equal(read_by_libhdf5(root / "virtual.h5"), expected)
    text = data.draw(selections(expected.shape))
    with dataset_of(root, "virtual.h5", "data") as (lease, dataset):
        assert dataset.shape == expected.shape
        for each in (None, text):
            selection = parse_selection(each, expected.shape)
            if selection.size:
                part = eval(f"array[{each or '...'}]", {"array": expected})
                np.testing.assert_array_equal(selected(lease, dataset, selection), part)


def read_by_libhdf5(file: Path) -> np.ndarray[Any, Any]:
    """What libhdf5 reads into fill values: it misses gaps when sources overlap."""
    with h5py.File(file, locking=False) as opened:
        dataset = opened["data"].id
        array = np.full(dataset.shape, -9, ">i4")
        dataset.read(h5s.ALL, h5s.ALL, array)
    return array


@pytest.fixture
def sources(root: Path) -> Path:
    """`part_0.h5` to `part_2.h5`, four numbers each; `grown.h5`, five rows of two."""
    for number in range(3):
        with h5py.File(root / f"part_{number}.h5", "w") as file:
            file["row"] = np.arange(4, dtype="<i4") + 10 * number
            file[f"row_{number}%"] = np.arange(4, dtype="<i4") + 10 * number
    with h5py.File(root / "grown.h5", "w") as file:
        file["rows"] = np.arange(10, dtype="<i4").reshape(5, 2)
    return root


ROWS = ((0, 0), (1, 1), (U, 1), (1, 4))


@pytest.mark.parametrize(
    ("virtual", "file", "dataset", "source"),
    [
        (((0, 0), (1, 1), (U, 1), (1, 2)), "grown.h5", "rows", ((0, 0), (1, 1), (U, 1), (1, 2))),
        (((3, 0), (2, 1), (U, 1), (1, 2)), "grown.h5", "rows", ((1, 0), (1, 1), (U, 1), (1, 2))),
        (ROWS, "part_%b.h5", "row", None),
        (((0, 0), (3, 1), (U, 1), (1, 4)), "part_%b.h5", "row", None),
        (((1, 0), (2, 1), (U, 1), (1, 4)), "part_%b.h5", "row_%b%%", None),
        (ROWS, "absent_%b.h5", "row", None),
    ],
)
def test_unlimited_mappings(
    sources: Path, virtual: Regular, file: str, dataset: str, source: Regular | None
) -> None:
    width = virtual[3][1]
    declared = (4,) if source is None else (5, 2)
    with h5py.File(sources / "virtual.h5", "w") as written:
        shape = (virtual[0][0] + 1, width)
        mapping = (space_of(shape, virtual, 0), file, dataset, space_of(declared, source))
        create_virtual(written, "data", [mapping], space_of(shape, None, 0))
    expected = read_by_libhdf5(sources / "virtual.h5")
    np.testing.assert_array_equal(values(sources, "virtual.h5", "data"), expected)
    assert described(sources, "virtual.h5", "data")["shape"] == expected.shape


def one_source(root: Path, file: str, dataset: str, declared: Shape = (4,)) -> None:
    with h5py.File(root / "virtual.h5", "a") as written:
        written["local"] = np.arange(4, dtype="<i4")
        written.create_group("group")
        written["text"] = b"abcd"
        mapping = (space_of((4,), None), file, dataset, space_of(declared, None))
        create_virtual(written, "data", [mapping], space_of((4,), None))


@pytest.mark.parametrize(
    ("file", "dataset", "expected"),
    [
        (".", "local", [0, 1, 2, 3]),
        ("virtual.h5", "/local", [0, 1, 2, 3]),
        ("part_1.h5", "row", [10, 11, 12, 13]),
        ("part_1.h5", "absent", [-9] * 4),
        ("absent.h5", "row", [-9] * 4),
        ("part_1.h5/absent.h5", "row", [-9] * 4),
        (".", "group", [-9] * 4),
    ],
)
def test_where_sources_are_found(
    sources: Path, file: str, dataset: str, expected: list[int]
) -> None:
    with h5py.File(sources.parent / "outside/secret.h5", "w") as secret:
        secret["row"] = np.arange(4) + 777
    one_source(sources, file, dataset)
    assert values(sources, "virtual.h5", "data").tolist() == expected


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    "file", ["{outside}/secret.h5", "../outside/secret.h5", "part_1.h5/../../outside/secret.h5"]
)
def test_a_source_outside_is_refused_whether_it_is_there_or_not(
    sources: Path, file: str, is_there: bool
) -> None:
    outside = sources.parent / "outside"
    if is_there:
        with h5py.File(outside / "secret.h5", "w") as secret:
            secret["row"] = np.arange(4) + 777
    one_source(sources, file.format(outside=outside), "row")
    with pytest.raises(SourceRefused, match="lies outside") as refused:
        values(sources, "virtual.h5", "data")
    assert refused.value.source == f"row of {file.format(outside=outside)}"
    assert described(sources, "virtual.h5", "data")["shape"] == (4,)


def test_an_absolute_source_is_found_beside_the_virtual_dataset(sources: Path) -> None:
    """As libhdf5 finds it where a folder was moved."""
    one_source(sources, "/elsewhere/part_1.h5", "row")
    assert values(sources, "virtual.h5", "data").tolist() == [10, 11, 12, 13]


def test_a_link_in_a_source_is_as_missing_as_its_target(sources: Path) -> None:
    with h5py.File(sources / "links.h5", "w") as file:
        file["soft"] = h5py.SoftLink("/absent")
        file["file"] = h5py.ExternalLink("absent.h5", "/row")
        file["entity"] = h5py.ExternalLink("part_1.h5", "/absent")
        file["outside"] = h5py.ExternalLink("../outside/secret.h5", "/row")
        file["cycle"] = h5py.SoftLink("/cycle")
    for name in ("soft", "file", "entity", "outside", "cycle"):
        one_source(sources, "links.h5", name)
        if name in {"outside", "cycle"}:
            with pytest.raises(SourceRefused, match="Cannot resolve"):
                values(sources, "virtual.h5", "data")
        else:
            assert values(sources, "virtual.h5", "data").tolist() == [-9] * 4
        (sources / "virtual.h5").unlink()


def refuse_damaged(root: Path) -> None:
    (root / "source.h5").write_bytes(b"no HDF5 at all" * 100)


def refuse_rank(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file["row"] = np.zeros((1, 2, 3), "<i4")


def refuse_size(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file["row"] = np.zeros(5, "<i4")


def refuse_empty(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file["row"] = h5py.Empty("<i4")


def refuse_text(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file["row"] = np.array([b"a", b"b", b"c", b"d"])


def refuse_variable_text(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file.create_dataset("row", (4,), h5py.string_dtype())


def refuse_array(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        file.create_dataset("row", (4,), np.dtype(("<i4", (1,))))


def refuse_time(root: Path) -> None:
    with h5py.File(root / "source.h5", "w") as file:
        h5d.create(file.id, b"row", h5t.UNIX_D32LE, h5s.create_simple((4,)))


@pytest.mark.parametrize(
    "refuse",
    [
        *(refuse_damaged, refuse_rank, refuse_size, refuse_empty),
        *(refuse_text, refuse_variable_text, refuse_array, refuse_time),
    ],
)
@pytest.mark.parametrize("is_hyperslab", [False, True])
def test_a_source_that_cannot_be_read_is_no_missing_one(
    sources: Path, refuse: Callable[[Path], None], is_hyperslab: bool
) -> None:
    """libhdf5 takes a damaged file for a missing one, and fails to read the others."""
    refuse(sources)
    with h5py.File(sources / "virtual.h5", "w") as written:
        part = ((0,), (1,), (1,), (4,)) if is_hyperslab else None
        mapping = (space_of((4,), None), "source.h5", "row", space_of((4,), part))
        create_virtual(written, "data", [mapping], space_of((4,), None))
    if refuse is refuse_size and is_hyperslab:
        assert values(sources, "virtual.h5", "data").tolist() == [0] * 4
        return
    with pytest.raises(SourceRefused, match=r"Cannot resolve the source row of source\.h5"):
        values(sources, "virtual.h5", "data")
    assert described(sources, "virtual.h5", "data")["shape"] == (4,)


def test_cyclic_virtual_datasets_end(root: Path) -> None:
    one_source(root, ".", "data")
    with pytest.raises(AsgihiveError, match="nested more than"):
        values(root, "virtual.h5", "data")


def test_nested_virtual_datasets(sources: Path) -> None:
    one_source(sources, "part_2.h5", "row")
    with h5py.File(sources / "above.h5", "w") as file:
        virtual = space_of((6,), ((1,), (1,), (1,), (4,)))
        create_virtual(
            file,
            "data",
            [(virtual, "virtual.h5", "data", space_of((4,), None))],
            space_of((6,), None),
        )
    assert values(sources, "above.h5", "data").tolist() == [-9, 20, 21, 22, 23, -9]


def test_without_mappings_it_is_its_fill_value(root: Path) -> None:
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.VIRTUAL)
    with h5py.File(root / "virtual.h5", "w") as file:
        h5d.create(file.id, b"data", h5t.STD_I32LE, h5s.create_simple((2, 3)), properties)
    assert values(root, "virtual.h5", "data").tolist() == [[0] * 3] * 2
    assert described(root, "virtual.h5", "data")["shape"] == (2, 3)


def test_sources_of_array_types(root: Path) -> None:
    dtype = np.dtype(("<i4", (2,)))
    with h5py.File(root / "virtual.h5", "w") as file:
        file.create_dataset("pairs", (2,), dtype)[...] = [[1, 2], [3, 4]]
        layout = h5py.VirtualLayout((3,), dtype)
        layout[:2] = h5py.VirtualSource(".", "pairs", (2,))
        file.create_virtual_dataset("data", layout)
        expected = file["data"][...]
    np.testing.assert_array_equal(values(root, "virtual.h5", "data"), expected)


def test_source_is_not_a_dataset_asked_for(root: Path) -> None:
    one_source(root, ".", "local")
    with pytest.raises(KindMismatch):
        values(root, "virtual.h5", "group")
    with pytest.raises(FileMissing):
        values(root, "absent.h5", "data")


def test_numbered_names() -> None:
    slab = RegularIndices(0, 1, None, 1)
    mapping = Mapping("%%b_%b%%.h5", "d", (slab,), (RegularIndices(0, 1, 1, 1),))
    assert mapping.numbered_blocks is not None
    assert mapping.select_block(7).file == "%b_7%.h5"
    assert Mapping("a%%b", "d", (slab,), (RegularIndices(0, 1, 1, 1),)).numbered_blocks is None


@given(
    st.integers(0, 5), st.integers(1, 5), st.integers(0, 4), st.integers(1, 5), st.integers(0, 60)
)
def test_slabs_count_what_they_select(
    start: int, block: int, gap: int, count: int, extent: int
) -> None:
    slab = RegularIndices(start, block + gap, count, block)
    indices = line(start, block + gap, count, block)
    assert slab.length == len(indices)
    assert slab.count_below(extent) == sum(i < extent for i in indices)
    assert slab.find_extent(len(indices)) == indices[-1] + 1
    assert slab.find_extent(0) == 0
    np.testing.assert_array_equal(slab.find_indices(np.arange(len(indices))), indices)
    positions, ordinals = slab.find_ordinals(Axis(0, 1, 60))
    assert positions.tolist() == indices
    assert ordinals.tolist() == list(range(len(indices)))


def test_those_of_a_fixed_extent_are_kept_open_and_circles_still_end(sources: Path) -> None:
    one_source(sources, "virtual.h5", "again")
    with h5py.File(sources / "virtual.h5", "a") as file:
        mapping = (space_of((4,), None), ".", "data", space_of((4,), None))
        create_virtual(file, "again", [mapping], space_of((4,), None))
    with leased(sources) as lease:
        file = lease.open_asked("virtual.h5")
        for _ in range(3):
            dataset = find_dataset(lease, file, "data")
            assert find_dataset(lease, file, "data") is dataset
            with pytest.raises(TypeUnsupported, match="nested more than 8 deep"):
                selected(lease, dataset, select_all((4,)))
