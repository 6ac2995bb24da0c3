"""What the page has beside h5web: reduced views, exports, and files that are written."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest

from tests.browser.browsing import Tab
from tests.service import versions

LENGTH = 600_000_000  # of doubles: 4.80 GB
ROWS, COLUMNS = 6000, 8000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file of some 100 KiB that is 5 GiB to readers."""
    root: Path = tmp_path_factory.mktemp("large")
    with h5py.File(root / "large.h5", "w") as file:
        line = file.create_dataset("line", (LENGTH,), "f8", chunks=(1 << 20,), compression=1)
        line[:1000] = np.arange(1000)
        line[LENGTH - 5] = 5000
        frames = file.create_dataset(
            "frames", (4, ROWS, COLUMNS), "i8", chunks=(1, 600, 800), compression=1
        )
        # As a whole: h5py would write a row that is broadcast row by row.
        frames[0, 1200:4800, 1600:6400] = np.tile(np.arange(4800), (3600, 1))
        file["words"] = np.array([f"word {n}" for n in range(200_000)], "S12")
    return root


def watch_data(tab: Tab) -> list[str]:
    """Return the requests for values, as they are made."""
    asked = list[str]()
    tab.page.on("request", lambda each: asked.append(each.url) if "/data?" in each.url else None)
    return asked


def read_notice(tab: Tab) -> str:
    return tab.read_text(".reduced-head")


def zoom_in(tab: Tab) -> None:
    """Draw a box around a tenth of a line, which is shown in place of all of it.

    Not by the wheel: each turn is drawn, and the page waits until no more come.
    """
    figure = tab.page.get_by_role("figure", name="line, reduced")
    box = figure.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse, keyboard = tab.page.mouse, tab.page.keyboard

    def is_heard() -> bool:
        # A tooltip is there once the canvas takes part.
        mouse.move(x - 5, y - 5)
        mouse.move(x, y)
        tooltips: int = figure.get_by_text(re.compile(r"\d+ to \d+:")).count()
        return tooltips > 0

    tab.wait_until(is_heard)
    keyboard.down("Control")
    mouse.down()
    mouse.move(x + box["width"] / 20, y + box["height"] / 20)
    mouse.move(x + box["width"] / 10, y + box["height"] / 10)
    mouse.up()
    keyboard.up("Control")


def test_a_line_of_four_gibibytes(serve: Callable[..., str], large: Path, tab: Tab) -> None:
    asked = watch_data(tab)
    tab.open(f"{serve(large)}/view/?file=large.h5&path=/line")
    tab.page.get_by_role("figure", name="line, reduced").wait_for()
    tab.wait_until(lambda: "of 146,485 elements" in read_notice(tab))
    assert "4.80 GB" in read_notice(tab)
    # A tab that is not frozen answers at once, and asked for nothing that is large.
    assert tab.page.evaluate("1 + 1") == 2
    assert asked
    assert all("max_points=" in each for each in asked)
    zoom_in(tab)
    tab.wait_until(lambda: "of 146,485 elements" not in read_notice(tab))
    assert "selection=0%3A600000000" not in asked[-1]


def test_a_place_that_was_left_is_no_longer_read(
    serve: Callable[..., str], large: Path, tab: Tab
) -> None:
    """Or else the reads of a reader who goes on zooming would wait for each other."""
    tab.open(f"{serve(large)}/view/?file=large.h5&path=/line")
    tab.page.get_by_role("figure", name="line, reduced").wait_for()
    held: list[Any] = []
    failed: list[Any] = []

    def hold_first(route: Any) -> None:
        if held:
            route.continue_()
        held.append(route)

    # Playwright marks what it calls, which a method of a list does not allow.
    tab.page.on("requestfailed", lambda request: failed.append(request))  # noqa: PLW0108
    tab.page.route("**/data?*", hold_first)
    zoom_in(tab)
    tab.wait_until(lambda: held)
    zoom_in(tab)
    tab.wait_until(lambda: held[0].request in failed)
    tab.wait_until(lambda: "of 146,485 elements" not in read_notice(tab))


def test_a_stack_of_large_frames(serve: Callable[..., str], large: Path, tab: Tab) -> None:
    asked = watch_data(tab)
    tab.open(f"{serve(large)}/view/?file=large.h5&path=/frames")
    tab.wait_for_picture(".reduced-figure canvas")
    assert f"4 \xd7 {ROWS} \xd7 {COLUMNS}" in read_notice(tab)
    assert all("shape=" in each for each in asked)
    # The method is a choice, and so is a line through the stack.
    tab.page.get_by_role("radio", name="Line").click()
    tab.page.get_by_role("figure", name="frames, reduced").wait_for()
    tab.page.get_by_role("tab", name="Inspect").click()
    tab.page.locator(".reduced").wait_for(state="detached")
    tab.page.get_by_role("tab", name="Display").click()
    tab.page.locator(".reduced").wait_for()


def test_many_rows_of_text(serve: Callable[..., str], large: Path, tab: Tab) -> None:
    tab.open(f"{serve(large)}/view/?file=large.h5&path=/words")
    tab.page.get_by_text("Rows 0 to 499 of 200000").wait_for()
    tab.page.get_by_role("cell", name="word 499", exact=True).wait_for()
    tab.page.get_by_role("button", name="On", exact=True).click()
    tab.page.get_by_role("cell", name="word 999", exact=True).wait_for()


def test_going_from_a_large_entity_to_a_small_one(
    serve: Callable[..., str], large: Path, tab: Tab
) -> None:
    tab.open(f"{serve(large)}/view/?file=large.h5&path=/line")
    tab.page.locator(".reduced").wait_for()
    tab.page.get_by_role("treeitem", name="large.h5").first.click()
    tab.page.locator(".reduced").wait_for(state="detached")
    assert "path=" not in tab.page.url
    tab.page.go_back()
    tab.page.locator(".reduced").wait_for()
    assert tab.page.url.endswith("path=/line")


def open_exports(tab: Tab, url: str) -> Any:
    tab.open(url)
    menu = tab.page.locator(".exports")
    menu.locator("summary").click()
    return menu


def test_exports_are_the_bytes_of_the_selection(
    url: str, demo: Path, tab: Tab, tmp_path: Path
) -> None:
    menu = open_exports(tab, f"{url}/view/?file=demo.nxs&path=/entry/images/data")
    menu.get_by_text("[0,:,:]", exact=True).wait_for()
    with h5py.File(demo / "demo.nxs", locking=False) as file:  # as the service has it
        expected = file["entry/images/data"][0]
    with tab.page.expect_download() as download:
        menu.get_by_role("link", name=re.compile("npy")).click()
    download.value.save_as(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected)
    with tab.page.expect_download() as download:
        menu.get_by_role("link", name=re.compile("csv")).click()
    download.value.save_as(tmp_path / "x.csv")
    read = np.loadtxt(tmp_path / "x.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(read, expected)
    tab.page.keyboard.press("Escape")
    menu.get_by_role("link", name=re.compile("npy")).wait_for(state="hidden")


def test_the_lines_of_python_read_what_is_shown(url: str, demo: Path, tab: Tab) -> None:
    pytest.importorskip("requests", reason="requests is not installed")
    menu = open_exports(tab, f"{url}/view/?file=demo.nxs&path=/entry/scan/intensity")
    with h5py.File(demo / "demo.nxs", locking=False) as file:  # as the service has it
        expected = file["entry/scan/intensity"][()]
    for label in ("NumPy", "h5py"):
        code = menu.locator("section", has_text=label).last.locator("pre").inner_text()
        names: dict[str, Any] = {}
        exec(code, names)  # as one who pastes it
        np.testing.assert_array_equal(names["values"], expected)


@pytest.fixture(scope="module")
def writer() -> Iterator[versions.Writer]:
    with versions.writer() as writer:
        yield writer


def test_the_newest_data_are_followed(
    serve: Callable[..., str], tmp_path: Path, writer: versions.Writer, tab: Tab
) -> None:
    file = tmp_path / "x.h5"
    writer("begin", file)
    writer("append", file, 2)
    url = serve(tmp_path, poll_seconds=0.05)
    tab.open(f"{url}/view/?file=x.h5&path=/rows")
    tab.page.get_by_text("Live", exact=True).wait_for()
    tab.page.get_by_role("button", name="Follow", exact=True).click()
    for count in range(3, 53):
        writer("append", file, 1)
        if count in {3, 52}:
            tab.wait_until(lambda n=count: f"({n} \xd7 " in read_notice(tab))  # type: ignore[misc]
    tab.page.get_by_role("button", name="Stop following").click()
    tab.page.get_by_text("The file has changed.").wait_for()
    tab.page.get_by_role("button", name="Reload").click()
    tab.page.get_by_text("The file has changed.").wait_for(state="hidden")
    meta = httpx.get(f"{url}/meta", params={"file": "x.h5", "path": "rows"}, trust_env=False)
    assert meta.json()["shape"][0] == 52
    writer("end", file)
    file.unlink()
    tab.page.get_by_text("The file is gone").wait_for()
