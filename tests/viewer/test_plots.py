"""`/plot`: what is drawn, read back out of the SVG, and what is refused."""

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.viewer.svg import DrawnCurve, LinePlot, draw, make_text
from tests.asgi.exchange import Exchange, http, run
from tests.service.asking import held

pytestmark = pytest.mark.anyio

SVG = "{http://www.w3.org/2000/svg}"
RANDOM = np.random.default_rng(14)
ANGLES = np.linspace(10, 20, 50)
HOSTILE = '<script>alert(1)</script>&\u202e\x01]]>"'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> H5App:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "scan"})
        scan = entry.create_group("scan")
        scan.attrs.update({"NX_class": "NXdata", "signal": "counts", "axes": ["angle"]})
        scan.attrs.update({"title": "A scan", "auxiliary_signals": ["model"]})
        scan["counts"] = np.arange(50.0)
        scan["counts"].attrs["units"] = "counts"
        scan["counts_errors"] = np.full(50, 2.0)
        scan["model"] = np.arange(50.0) + 1
        scan["angle"] = ANGLES
        scan["angle"].attrs.update({"units": "deg", "long_name": "2 theta"})
        bins = file.create_group("bins")
        bins.attrs.update({"NX_class": "NXdata", "signal": "n", "axes": [".", "energy"]})
        bins["n"] = np.arange(12.0).reshape(3, 4)
        bins["energy"] = [0.0, 1, 10, 100, 1000]
        old = file.create_group("old")
        old.attrs["NX_class"] = "NXdata"
        old["y"] = [3, 1, 2]
        old["y"].attrs.update({"signal": 1, "axes": "x"})
        old["x"] = [1.0, 2, 4]
        file["long"] = np.zeros(100_000)
        file["long"][77_777] = 5
        file["gaps"] = [1.0, math.nan, 2, 3, math.inf, 4]
        file["cube"] = np.arange(24).reshape(2, 3, 4)
        file["scalar"] = 3
        file["falling"] = np.arange(50.0)[::-1]
        file["text"] = [b"a"]
        file["none"] = np.empty(0)
        file.create_group("nothing")
        hostile = file.create_group("hostile")
        hostile.attrs.update({"NX_class": "NXdata", "signal": "v", "title": HOSTILE.encode()})
        hostile["v"] = [1, 2]
        hostile["v"].attrs.update({"units": HOSTILE.encode(), "long_name": "x" * 60_000})
    return H5App(root)


async def ask_plot(app: H5App, **query: Any) -> Exchange:
    """The answer to a request for a plot."""
    raw = urlencode({"file": "x.h5", **query}, doseq=True).encode()
    return await run(app, http("/plot", query_string=raw))


async def plot(app: H5App, **query: Any) -> ET.Element:
    """A plot as it is parsed."""
    answer = await ask_plot(app, **query)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return parse(answer.body)


def parse(body: bytes) -> ET.Element:
    """The root of an SVG, which is as accessible as it should be."""
    root = ET.fromstring(body)
    assert root.get("role") == "img"
    names = [each.get("id") for each in (root[0], root[1])]
    assert (root[0].tag, root[1].tag) == (f"{SVG}title", f"{SVG}desc")
    assert str(root.get("aria-labelledby")).split() == names
    assert not list(root.iter(f"{SVG}script"))
    assert not [name for each in root.iter() for name in each.attrib if name.startswith("on")]
    return root


def list_texts(root: ET.Element) -> list[str]:
    """What is written on a plot."""
    return ["".join(each.itertext()) for each in root.iter(f"{SVG}text")]


def list_lines(root: ET.Element, name: str = "line") -> list[np.ndarray[Any, Any]]:
    """The points of each curve, in pixels; of several runs of it, all points."""
    found = []
    for group in root.iter(f"{SVG}g"):
        for path in group.iter(f"{SVG}path"):
            if path.get("class") == name:
                numbers = re.findall(r"-?[0-9.]+", str(path.get("d")))
                found.append(np.array(numbers, float).reshape(-1, 2))
    return found


def find_ticks(root: ET.Element) -> tuple[dict[float, float], dict[float, float]]:
    """The places of the numbers along the horizontal and the vertical axis."""
    across, down = {}, {}
    for each in root.iter(f"{SVG}text"):
        label = "".join(each.itertext()).replace("\N{MINUS SIGN}", "-")
        if re.fullmatch(r"-?[0-9.]+", label) and each.get("x"):
            if each.get("text-anchor") == "middle":
                across[float(label)] = float(str(each.get("x")))
            elif each.get("text-anchor") == "end":
                down[float(label)] = float(str(each.get("y"))) - 4
    return across, down


def read_back(root: ET.Element, points: Any) -> np.ndarray[Any, Any]:
    """The values of points in pixels, by the numbers at the axes."""
    values = []
    for places, column in zip(find_ticks(root), points.T, strict=True):
        known = sorted((place, label) for label, place in places.items())
        (first, low), (last, high) = known[0], known[-1]
        values.append(low + (column - first) * (high - low) / (last - first))
    return np.array(values).T


async def test_a_curve_lies_where_its_axes_say(app: H5App) -> None:
    root = await plot(app, path="/entry/scan/counts")
    [line] = list_lines(root)
    expected = np.stack([ANGLES, np.arange(50.0)], axis=1)
    np.testing.assert_allclose(read_back(root, line), expected, atol=0.02)
    texts = list_texts(root)
    assert {"2 theta (deg)", "counts (counts)", "A scan"} <= set(texts)
    [band] = list_lines(root, "band")
    there, back = read_back(root, band)[:50], read_back(root, band)[50:][::-1]
    np.testing.assert_allclose(there[:, 1], np.arange(50) + 2.0, atol=0.05)
    np.testing.assert_allclose(back[:, 1], np.arange(50) - 2.0, atol=0.05)


async def test_the_default_of_a_file_has_all_its_signals(app: H5App) -> None:
    for query in ({}, {"path": "/entry"}, {"path": "/entry/scan"}):
        answer = await ask_plot(app, **query)
        assert answer.headers["x-asgihive-paths"].split(",")[:1] == ["/entry/scan/counts"]
        root = parse(answer.body)
        assert len(list_lines(root)) == 2
        assert {"counts (counts)", "model"} <= set(list_texts(root))


async def test_older_files_name_signal_and_axes_otherwise(app: H5App) -> None:
    root = await plot(app, path="/old")
    [line] = list_lines(root)
    np.testing.assert_allclose(read_back(root, line), [[1, 3], [2, 1], [4, 2]], atol=0.02)


async def test_a_selection_takes_its_part_of_the_axis(app: H5App) -> None:
    root = await plot(app, path="/entry/scan/counts", selection="5:40:7")
    [line] = list_lines(root)
    expected = np.stack([ANGLES[5:40:7], np.arange(50.0)[5:40:7]], axis=1)
    np.testing.assert_allclose(read_back(root, line), expected, atol=0.02)
    root = await plot(app, path="/cube", selection="1,:,2")
    np.testing.assert_allclose(read_back(root, list_lines(root)[0])[:, 1], [14, 18, 22], atol=0.05)


async def test_edges_of_bins_are_shown_at_their_middles(app: H5App) -> None:
    root = await plot(app, path="/bins/n", selection="2")
    [line] = list_lines(root)
    expected = np.array([[0.5, 8], [5.5, 9], [55, 10], [550, 11]])
    np.testing.assert_allclose(read_back(root, line), expected, atol=1)


async def test_without_a_selection_it_is_the_last_dimension(app: H5App) -> None:
    answer = await ask_plot(app, path="/cube")
    assert answer.headers["x-asgihive-selection"] == "0,0,0:4"


async def test_peaks_stay_however_many_values_there_are(app: H5App) -> None:
    root = await plot(app, path="/long")
    [line] = list_lines(root)
    assert len(line) <= 2 * 640
    values = read_back(root, line)
    top = values[:, 1].argmax()
    assert values[top, 1] == pytest.approx(5, abs=0.02)
    assert values[top, 0] == pytest.approx(77_777, abs=100_000 / 640)
    [line] = list_lines(await plot(app, path="/long", max_points="10"))
    assert len(line) == 10
    assert "100000 values" in str(root[1].text)


async def test_what_is_no_number_is_a_gap(app: H5App) -> None:
    root = await plot(app, path="/gaps")
    [line] = list_lines(root)
    assert len(line) == 2
    assert len(list(root.iter(f"{SVG}circle"))) == 2


async def test_a_logarithmic_axis_leaves_out_what_is_not_positive(app: H5App) -> None:
    root = await plot(app, path="/bins/n", selection="0", xscale="log", yscale="log")
    [line] = list_lines(root)
    assert len(line) == 3
    steps = np.diff(line[:, 0])
    assert steps[0] == pytest.approx(steps[1], abs=0.1)


async def test_several_curves_have_a_legend_and_colours(app: H5App) -> None:
    root = await plot(app, path=["/cube", "/old/y"], selection=["0,1", "1:"])
    assert len(list_lines(root)) == 2
    assert {"cube", "y"} <= set(list_texts(root))
    colours = {each.get("stroke") for each in root.iter(f"{SVG}path") if each.get("stroke")}
    assert len(colours) == 2


async def test_the_legend_lies_where_the_fewest_points_are(app: H5App) -> None:
    """Both curves rise to the right, and those of the other pair fall."""
    for path, is_left in (("/entry/scan", True), (["/falling", "/falling"], False)):
        root = await plot(app, path=path)
        legend = [each for each in root.iter(f"{SVG}rect") if each.get("class") == "legend"]
        assert (float(str(legend[0].get("x"))) < 320) is is_left


async def test_a_small_plot_is_its_curve_alone(app: H5App) -> None:
    root = await plot(app, shape="96,64", path="/entry/scan/counts")
    assert (root.get("width"), root.get("height")) == ("96", "64")
    assert not list_texts(root)
    assert len(list_lines(root)) == 1


async def test_dark_and_light_have_the_same_curve(app: H5App) -> None:
    light, dark = [await ask_plot(app, theme=each) for each in ("light", "dark")]
    assert light.body != dark.body
    assert light.headers["etag"] != dark.headers["etag"]
    lines = [list_lines(parse(each.body)) for each in (light, dark)]
    np.testing.assert_array_equal(lines[0], lines[1])
    assert (await ask_plot(app, theme="dark")).body == dark.body


async def test_text_of_a_file_is_text(app: H5App) -> None:
    root = await plot(app, path="/hostile")
    texts = list_texts(root)
    assert any(each.startswith("<script>alert(1)</script>&\ufffd\ufffd]]>") for each in texts)
    assert max(map(len, texts)) <= 80


REFUSED = [
    ({"path": "/cube", "selection": ":,:"}, "/image"),
    ({"path": "/cube", "selection": "0,0,0"}, "a curve has one"),
    ({"path": "/long", "selection": "5:5"}, "nothing is selected"),
    ({"path": "/none"}, "nothing to show"),
    ({"path": "/scalar"}, "one dimension or more"),
    ({"path": "/text"}, "real numbers"),
    ({"path": ["/old/y"] * 17}, "at most 16 paths"),
    ({"path": ["/old/y"] * 3, "selection": ["0:1", "0:2"]}, "one for each of 3"),
    ({"shape": "0,1"}, "from 1 to 4096"),
    ({"theme": "blue"}, "light and dark"),
    ({"yscale": "sqrt"}, "linear and log"),
    ({"max_points": "1"}, "from 2 to 10000"),
    ({"max_points": "10001"}, "from 2 to 10000"),
]


@pytest.mark.parametrize(("query", "told"), REFUSED, ids=lambda each: str(each)[:40])
async def test_what_cannot_be_is_refused_in_words(app: H5App, query: Any, told: str) -> None:
    answer = await ask_plot(app, **query)
    assert answer.status == 422, answer.body
    assert told in answer.message
    assert not held(app)


async def test_a_group_without_a_default_is_not_found(app: H5App) -> None:
    answer = await ask_plot(app, path="/nothing")
    assert (answer.status, "no NeXus default" in answer.message) == (404, True)


async def test_a_permission_is_asked_for_axes_and_errors_too(app: H5App) -> None:
    for hidden in ("/entry/scan/angle", "/entry/scan/counts_errors", "/"):

        def permission(entity: RequestedEntity, hidden: str = hidden) -> bool:
            return entity.path != hidden

        answer = await run(app, http("/plot?file=x.h5", state={PERMISSION: permission}))
        assert answer.status == 403
    url = "/plot?file=x.h5&path=/old/y&path=/long"
    state = {PERMISSION: lambda entity: entity.path != "/long"}
    assert (await run(app, http(url, state=state))).status == 403
    state = {PERMISSION: lambda entity: entity.path != "/cube"}
    assert (await run(app, http(url, state=state))).status == 200


async def test_the_answer_is_versioned_and_compressed(app: H5App, tmp_path: Path) -> None:
    answer = await ask_plot(app)
    fields = [(b"if-none-match", answer.headers["etag"].encode())]
    again = await run(app, http("/plot?file=x.h5", headers=fields))
    assert again.status == 304
    fields = [(b"accept-encoding", b"gzip")]
    coded = await run(app, http("/plot?file=x.h5", headers=fields))
    assert coded.headers["content-encoding"] == "gzip"
    assert len(coded.body) < len(answer.body)


NUMBERS = arrays.arrays("f8", st.shared(st.integers(1, 9), key="length"))


@given(x=NUMBERS, low=NUMBERS, high=NUMBERS, errors=st.none() | NUMBERS, data=st.data())
def test_any_numbers_make_a_picture(x: Any, low: Any, high: Any, errors: Any, data: Any) -> None:
    curve = DrawnCurve("c", x, low, high, errors)
    plot = LinePlot(
        [curve, curve],
        title=data.draw(st.text(max_size=9)),
        x_label="x",
        y_label="y",
        x_is_log=data.draw(st.booleans()),
        y_is_log=data.draw(st.booleans()),
        width=data.draw(st.sampled_from([1, 640, 4096])),
    )
    root = parse(draw(plot))
    for line in list_lines(root):
        assert np.isfinite(line).all()


@given(st.text())
def test_any_text_is_shown_as_far_as_xml_has_it(text: str) -> None:
    shown = str(ET.fromstring(f"<t>{make_text(text)}</t>").text or "")
    assert len(shown) <= 80
    kept = [each for each in text[:79] if each.isalnum()]
    assert [each for each in shown if each.isalnum()][: len(kept)] == kept
