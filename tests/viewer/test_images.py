"""`/image`: its pixels against NumPy and cmap, its headers, and what is refused."""

from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from cmap import Colormap

from asgihive.service import H5App
from asgihive.service.gate import PERMISSION, RequestedEntity
from asgihive.settings import H5Settings
from tests.asgi.exchange import http, run
from tests.service.asking import ask, held
from tests.viewer.pictures import Array, ask_image, decode, draw, paint, write

pytestmark = pytest.mark.anyio

RANDOM = np.random.default_rng(14)
NORMAL = RANDOM.normal(5, 2, (40, 60))
COUNTS = RANDOM.poisson(3, (3, 500, 700)).astype(np.uint16)
COLOURS = RANDOM.integers(0, 256, (12, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> H5App:
    root = tmp_path_factory.mktemp("data")
    with h5py.File(root / "x.h5", "w") as file:
        file["a"] = NORMAL
        file["signed"] = np.arange(-2000, 2000, dtype=">i2").reshape(40, 100)
        file["flags"] = NORMAL > 5
        file["line"] = np.arange(10.0)
        file["text"] = [[b"a", b"b"]]
        file["complex"] = NORMAL + 1j
        file["empty"] = h5py.Empty("f4")
        file["none"] = np.empty((0, 5, 5))
        file.create_dataset("arrays", (4, 4), np.dtype(("f4", (3,))))
        file.create_dataset("stack", data=COUNTS, chunks=(1, 128, 128), compression="gzip")
        for name, attributes in {
            "photo": {"CLASS": b"IMAGE", "INTERLACE_MODE": b"INTERLACE_PIXEL"},
            "nexus": {"interpretation": "rgb-image"},
            "planes": {"CLASS": b"IMAGE", "INTERLACE_MODE": b"INTERLACE_PLANE"},
            "plain": {},
        }.items():
            file[name] = COLOURS
            file[name].attrs.update(attributes)
    return H5App(root)


@pytest.mark.parametrize("picture", ["png", "webp"])
async def test_pixels_are_those_that_cmap_gives(app: H5App, picture: str) -> None:
    got = await draw(app, vmin="1", vmax="9", format=picture)
    np.testing.assert_array_equal(got, paint(NORMAL, 1, 9))


@pytest.mark.parametrize("name", ["gray", "inferno_r", "cmocean:ice", "CMRmap"])
async def test_a_colour_map_is_found_by_its_name(app: H5App, name: str) -> None:
    got = await draw(app, vmin="1", vmax="9", cmap=name)
    np.testing.assert_array_equal(got, paint(NORMAL, 1, 9, name))


async def test_a_map_of_ten_colours_has_ten_of_them(tmp_path: Path) -> None:
    app = write(tmp_path, {"a": np.arange(10).reshape(2, 5)})
    got = await draw(app, vmin="0", vmax="9", cmap="tab10")
    expected: Any = Colormap("tab10")(np.arange(10).reshape(2, 5), bytes=True)
    np.testing.assert_array_equal(got, expected)


async def test_the_limits_are_percentiles_of_the_pixels(app: H5App) -> None:
    low, high = np.percentile(NORMAL, [1, 99])
    answer = await ask_image(app)
    assert answer.headers["x-asgihive-limits"] == f"{float(low)!r},{float(high)!r}"
    np.testing.assert_array_equal(decode(answer), paint(NORMAL, low, high))
    low, high = np.percentile(NORMAL, [0, 50])
    got = await draw(app, percentiles="0,50")
    np.testing.assert_array_equal(got, paint(NORMAL, low, high))
    got = await draw(app, percentiles="0,50", vmin="3")
    np.testing.assert_array_equal(got, paint(NORMAL, 3, high))


async def test_big_endian_integers_and_booleans_are_numbers(app: H5App) -> None:
    got = await draw(app, "/signed", vmin="-2000", vmax="1999")
    expected = paint(np.arange(-2000, 2000).reshape(40, 100), -2000, 1999)
    np.testing.assert_array_equal(got, expected)
    got = await draw(app, "/flags")
    np.testing.assert_array_equal(got, paint(NORMAL > 5, 0, 1))


async def test_a_selection_has_two_dimensions_after_its_integers(app: H5App) -> None:
    answer = await ask_image(app, "/stack", selection="1,10:400:3,-1:")
    assert answer.headers["x-asgihive-selection"] == "1,10:398:3,699:700"
    answer = await ask_image(app, "/stack", selection="2,5:205,:300", vmin="0", vmax="9")
    np.testing.assert_array_equal(decode(answer), paint(COUNTS[2, 5:205, :300], 0, 9))


async def test_without_a_selection_the_first_image_is_shown(app: H5App) -> None:
    answer = await ask_image(app, "/stack", vmin="0", vmax="9")
    assert answer.headers["x-asgihive-selection"] == "0,0:500,0:700"
    np.testing.assert_array_equal(decode(answer), paint(COUNTS[0], 0, 9))


def reduce(values: Array, factor: int, method: Any) -> Array:
    """Bins of `factor` by `factor`, one after the other."""
    height, width = values.shape
    rows = range(0, height, factor)
    columns = range(0, width, factor)
    return np.array(
        [[method(values[i : i + factor, j : j + factor]) for j in columns] for i in rows]
    )


@pytest.mark.parametrize("method", ["mean", "min", "max"])
async def test_what_is_larger_is_reduced_with_its_proportions(app: H5App, method: str) -> None:
    answer = await ask_image(app, "/stack", shape="100,100", vmin="0", vmax="9", method=method)
    assert answer.headers["x-asgihive-factors"] == "7,7"
    expected = reduce(COUNTS[0], 7, getattr(np, method))
    np.testing.assert_array_equal(decode(answer), paint(expected, 0, 9))


async def test_nearest_shows_elements_themselves(app: H5App) -> None:
    got = await draw(app, "/stack", shape="100,1000", method="nearest", vmin="0", vmax="9")
    np.testing.assert_array_equal(got, paint(COUNTS[0, ::5, ::5], 0, 9))


async def test_no_side_gets_too_short_for_the_sake_of_proportions(tmp_path: Path) -> None:
    app = write(tmp_path, {"a": np.zeros((4000, 20))})
    assert (await draw(app, shape="100,100")).shape == (100, 20, 4)
    answer = await ask_image(app)
    assert answer.headers["x-asgihive-factors"] == "4,1"


async def test_by_default_the_longer_side_is_bounded(tmp_path: Path) -> None:
    app = write(tmp_path, {"a": np.zeros((1030, 2100), np.uint8)})
    assert (await draw(app)).shape == (344, 700, 4)
    assert (await draw(app, shape="4096,4096")).shape == (1030, 2100, 4)


async def test_masked_pixels_spoil_neither_limits_nor_means(tmp_path: Path) -> None:
    """Eiger detectors write the largest value between their modules."""
    frame = RANDOM.poisson(20, (64, 64)).astype(np.uint32)
    frame[30:34] = 2**32 - 1
    app = write(tmp_path, {"a": frame})
    told = frame[frame != 2**32 - 1]
    low, high = np.percentile(told, [1, 99])
    np.testing.assert_array_equal(await draw(app), paint(frame, low, high))
    means = np.where(frame == 2**32 - 1, np.nan, frame).reshape(16, 4, 16, 4)
    with np.errstate(invalid="ignore"):
        points = np.nanmean(means[:7], axis=(1, 3))
    got = await draw(app, shape="16,16", vmin="10", vmax="30")
    np.testing.assert_array_equal(got[:7], paint(points, 10, 30))
    frame[24:36] = 2**32 - 1
    folder = tmp_path / "other"
    folder.mkdir()
    got = await draw(write(folder, {"a": frame}), shape="16,16", vmin="10", vmax="30")
    np.testing.assert_array_equal(got[7], paint(np.full(16, 99), 10, 30))


@pytest.mark.parametrize("name", ["photo", "nexus"])
async def test_arrays_of_colours_are_shown_as_they_are(app: H5App, name: str) -> None:
    for query in ({}, {"selection": "..."}):
        got = await draw(app, f"/{name}", **query)
        np.testing.assert_array_equal(got[..., :3], COLOURS)
        assert (got[..., 3] == 255).all()
    got = await draw(app, f"/{name}", shape="6,8")
    expected = COLOURS.reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_array_equal(got[..., :3], np.rint(expected))
    # One colour of it is a selection like others.
    got = await draw(app, f"/{name}", selection=":,:,1", vmin="0", vmax="255")
    np.testing.assert_array_equal(got, paint(COLOURS[..., 1], 0, 255))


@pytest.mark.parametrize("name", ["planes", "plain"])
async def test_other_arrays_are_stacks_of_images(app: H5App, name: str) -> None:
    assert (await draw(app, f"/{name}")).shape == (16, 3, 4)


async def test_transparency_of_colours_is_kept(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (9, 7, 4), np.uint8)
    app = write(tmp_path, {"a": pixels})
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["a"].attrs["interpretation"] = "rgba-image"
    for picture in ("png", "webp"):
        np.testing.assert_array_equal(await draw(app, format=picture), pixels)


async def test_what_is_no_number_has_a_colour_of_its_own(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 200).reshape(10, 20)
    values[3, 4:7] = np.nan
    app = write(tmp_path, {"a": values})
    got = await draw(app, vmin="0", vmax="1")
    assert (got[..., 3] == 0).sum() == 3
    assert (got[3, 4:7, 3] == 0).all()
    for name, colour in {"red": (255, 0, 0, 255), "#10203040": (16, 32, 48, 64)}.items():
        got = await draw(app, vmin="0", vmax="1", nan=name)
        assert (got[3, 4:7] == colour).all()
        assert (got[0, 0] == paint(0, 0, 1)).all()


REFUSED = [
    ({"cmap": "virids"}, "did you mean viridis"),
    ({"cmap": "inferno_s"}, "did you mean inferno"),
    ({"cmap": "red-blue"}, "Matplotlib"),
    ({"cmap": "../x"}, "Matplotlib"),
    ({"norm": "logarithmic"}, "linear, log, sqrt and symlog"),
    ({"vmin": "nan"}, "finite"),
    ({"vmax": "inf"}, "finite"),
    ({"vmin": "1e999"}, "finite"),
    ({"vmin": "3", "vmax": "3"}, "below vmax"),
    ({"vmin": "4", "vmax": "3"}, "below vmax"),
    ({"vmin": "0", "norm": "log"}, "above 0"),
    ({"vmax": "-1", "norm": "log"}, "above 0"),
    ({"percentiles": "99,1"}, "low below high"),
    ({"percentiles": "0,101"}, "from 0 to 100"),
    ({"percentiles": "1"}, "two numbers"),
    ({"percentiles": "nan,99"}, "from 0 to 100"),
    ({"shape": "0,5"}, "from 1 to 4096"),
    ({"shape": "99999999999,5"}, "from 1 to 4096"),
    ({"shape": "5"}, "two whole numbers"),
    ({"shape": "5,5,5"}, "two whole numbers"),
    ({"nan": "#12345"}, "#rrggbb"),
    ({"nan": "nosuch"}, "CSS"),
    ({"method": "minmax"}, "mean, min, max and nearest"),
    ({"format": "gif"}, "png and webp"),
    ({"selection": "0"}, "an image has two"),
    ({"selection": ":,:,:"}, "2"),
    ({"selection": "5:5,:"}, "nothing is selected"),
    ({"path": "/stack", "selection": "0:2"}, "3 dimensions"),
    ({"path": "/line"}, "/plot"),
    ({"path": "/line", "selection": "3:7"}, "/plot"),
    ({"path": "/text"}, "real numbers"),
    ({"path": "/complex"}, "real numbers"),
    ({"path": "/arrays"}, "real numbers"),
    ({"path": "/empty"}, "an image is needed"),
    ({"path": "/none"}, "nothing to show"),
    ({"cmpa": "gray"}, "did you mean `cmap`"),
]


@pytest.mark.parametrize(("query", "told"), REFUSED, ids=lambda each: str(each)[:40])
async def test_what_cannot_be_is_refused_in_words(
    app: H5App, query: dict[str, str], told: str
) -> None:
    answer = await ask(app, "/image", None, "GET", **{"path": "/a", **query})
    assert answer.status == 422, answer.body
    assert told in answer.message
    assert not held(app)


async def test_an_answer_is_kept_and_versioned(app: H5App) -> None:
    first = await ask_image(app, cmap="magma")
    again = await ask_image(app, cmap="magma")
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])
    assert app.store.answers.kept.peek is not None
    other = await ask_image(app, cmap="plasma")
    assert other.headers["etag"] != first.headers["etag"]
    for asked in (app, H5App(app.store.sandbox.root)):
        fields = {"if-none-match": first.headers["etag"]}
        unchanged = await ask(asked, "/image", fields, "GET", path="/a", cmap="magma")
        assert (unchanged.status, unchanged.body) == (304, b"")
    failed = await ask(app, "/image", {"if-match": '"x"'}, "GET", path="/a")
    assert failed.status == 412
    head = await ask(app, "/image", None, "HEAD", path="/a", cmap="magma")
    assert (head.status, head.headers["content-length"]) == (200, str(len(first.body)))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/webp", "image/webp"),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("text/html,*/*;q=0.8", "image/png"),
        ("application/json", "image/png"),
    ],
)
async def test_accept_chooses_the_format(app: H5App, accept: str, media_type: str) -> None:
    answer = await ask(app, "/image", {"accept": accept}, "GET", path="/a")
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "accept"


async def test_more_than_an_answer_may_hold_is_refused(app: H5App) -> None:
    small = H5App(app.store.sandbox.root, H5Settings(max_response_bytes=10_000))
    answer = await ask_image(small)
    assert (answer.status, "`shape`" in answer.message) == (413, True)
    assert (await ask_image(small, shape="20,20")).status == 200


async def test_pictures_may_be_switched_off(app: H5App) -> None:
    plain = H5App(app.store.sandbox.root, H5Settings(pictures=False))
    assert (await ask_image(plain)).status == 404


async def test_a_permission_is_asked_for_what_is_shown(app: H5App) -> None:
    """The request names the root, or a group, and what is shown lies below."""
    asked = []

    def permission(entity: RequestedEntity) -> bool:
        asked.append((entity.route, entity.path))
        return entity.path != "/stack"

    for url, status in {
        "/image?file=x.h5": 403,
        "/image?file=x.h5&path=/stack": 403,
        "/image?file=x.h5&path=/a": 200,
    }.items():
        for _ in range(2):  # the second time out of memory
            answer = await run(app, http(url, state={PERMISSION: permission}))
            assert answer.status == status, url
    assert ("image", "/stack") in asked
    assert not held(app)


async def test_a_batch_asks_the_permission_too(app: H5App) -> None:
    body = b'[{"route": "image", "params": {"file": "x.h5", "shape": "8,8"}}]'
    for hidden, status in {"/stack": 403, "/a": 200}.items():
        state = {PERMISSION: lambda entity, hidden=hidden: entity.path != hidden}
        url = "/batch?format=msgpack"
        answer = await run(app, http(url, "POST", body=body, state=state))
        (member,) = msgpack.unpackb(answer.body)
        assert member["status"] == status
        assert status == 403 or member["body"].startswith(b"\x89PNG")
