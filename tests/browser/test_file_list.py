"""The list of files: as many as there are, by mouse and by keyboard, whatever they are called."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.browsing import PHONE, Tab
from tests.browser.directories import ODD_NAMES, write_image, write_many, write_odd_names

Serve = Callable[..., str]

MANY = 10_000
SCREENFUL = 80  # rows, at most, that exist at one time


def read_focused(tab: Tab) -> str:
    """Return the first line of what has the focus."""
    text: str = tab.page.evaluate("document.activeElement.innerText ?? ''")
    return text.split("\n", maxsplit=1)[0]


def read_names(tab: Tab) -> list[str]:
    names: list[str] = tab.page.locator(".row-name").all_inner_texts()
    return names


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans in a folder, and a folder in it."""
    for value, name in enumerate(("scan_1.nxs", "scan_2.nxs", "scan_3.nxs")):
        write_image(tmp_path / name, value)
    (tmp_path / "older").mkdir()
    write_image(tmp_path / "older" / "scan_0.nxs")
    return tmp_path


def test_ten_thousand_files_are_scrolled_through_with_few_rows(
    tab: Tab, serve: Serve, tmp_path: Path
) -> None:
    write_many(tmp_path, MANY)
    tab.open(serve(tmp_path) + "/view/")
    tab.page.get_by_text("scan_00000.h5").click(trial=True)
    tab.page.keyboard.press("Escape")  # to the list

    def is_at_the_end() -> bool:
        tab.page.keyboard.press("End")
        return "scan_09999.h5" in read_names(tab)

    tab.wait_until(is_at_the_end)
    tab.wait_until(lambda: read_focused(tab) == "scan_09999.h5")
    assert tab.page.locator(".row").count() < SCREENFUL
    assert tab.read_text(".browser-footer") == "10,000 entries"
    tab.page.keyboard.press("Home")
    tab.wait_until(lambda: read_focused(tab) == "scan_00000.h5")


def test_the_first_screen_asks_for_no_more_than_it_shows(
    tab: Tab, serve: Serve, tmp_path: Path
) -> None:
    write_many(tmp_path, 2000)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open(serve(tmp_path) + "/view/")
    tab.page.get_by_text("100 entries so far").wait_for()
    assert len([each for each in asked if "/files?" in each]) == 1


@pytest.mark.parametrize("value", range(len(ODD_NAMES)))
def test_a_file_is_opened_whatever_its_name(
    tab: Tab, serve: Serve, tmp_path: Path, value: int
) -> None:
    write_odd_names(tmp_path)
    url = serve(tmp_path)
    tab.open(url + "/view/")
    links = tab.page.locator(f'.row[href*="file={quote(ODD_NAMES[value])}"]')
    links.click()
    # The address says all bytes of the name, and survives a reload.
    for _ in range(2):
        tab.wait_for_picture()
        assert tab.page.url == f"{url}/view/?file={quote(ODD_NAMES[value])}"
        tab.page.reload()
    tab.open(f"{url}/view/?file={quote(ODD_NAMES[value])}&path=/value")
    tab.page.get_by_text(str(value), exact=True).first.wait_for()


def test_folders_are_gone_down_and_up_whatever_their_names(
    tab: Tab, serve: Serve, tmp_path: Path
) -> None:
    steps = (b"a b", b"c#d?", b"e%20", b"\xfc")
    below = os.path.join(os.fsencode(tmp_path), *steps)
    os.makedirs(below)
    write_image(below + b"/end.h5")
    tab.open(serve(tmp_path) + "/view/")
    for step in steps:
        tab.page.locator(f'.row[href$="{quote(step)}"]').click()
    tab.page.get_by_text("end.h5").click()
    tab.wait_for_picture()
    crumbs = tab.page.get_by_role("navigation", name="Folders").get_by_role("listitem")
    shown = "Files", "a b", "c#d?", "e%20", "\N{REPLACEMENT CHARACTER}", "end.h5"
    assert crumbs.all_inner_texts() == list(shown)
    crumbs.get_by_text("c#d?").click()
    tab.wait_until(lambda: read_names(tab) == ["e%20"])
    assert tab.page.title() == "c#d? \N{MIDDLE DOT} asgihive"


def test_everything_is_done_by_keyboard(tab: Tab, serve: Serve, scans: Path) -> None:
    url = serve(scans) + "/view/"
    tab.open(url)
    keys = tab.page.keyboard
    tab.page.get_by_text("scan_1.nxs").wait_for()
    keys.press("/")
    tab.wait_until(lambda: tab.page.locator("input[type=search]:focus").count() == 1)
    keys.press("ArrowDown")
    tab.wait_until(lambda: read_focused(tab) == "older")
    keys.press("ArrowDown")
    tab.wait_until(lambda: read_focused(tab) == "scan_1.nxs")
    keys.press("Enter")
    tab.page.wait_for_url(url + "?file=scan_1.nxs")
    tab.wait_for_picture()
    keys.press("j")
    tab.page.wait_for_url(url + "?file=scan_2.nxs")
    keys.press("k")
    tab.page.wait_for_url(url + "?file=scan_1.nxs")
    keys.press("b")
    tab.page.get_by_role("complementary").wait_for(state="hidden")
    keys.press("b")
    tab.page.get_by_role("complementary").wait_for()
    keys.press("u")
    tab.page.wait_for_url(url)
    tab.wait_until(lambda: read_focused(tab) == "scan_1.nxs")
    keys.press("?")
    tab.page.get_by_role("dialog", name="Keys").wait_for()
    keys.press("Escape")
    tab.wait_until(lambda: tab.page.get_by_role("dialog").count() == 0)


def test_back_and_forward_go_through_files_and_paths(tab: Tab, serve: Serve, scans: Path) -> None:
    url = serve(scans) + "/view/"
    tab.open(url)
    tab.page.get_by_text("scan_2.nxs").click()
    tab.wait_for_picture()
    tab.page.get_by_role("treeitem", name="value").click()
    tab.page.wait_for_url(url + "?file=scan_2.nxs&path=/value")
    assert tab.page.title() == "/value \N{MIDDLE DOT} scan_2.nxs \N{MIDDLE DOT} asgihive"
    tab.page.go_back()
    tab.wait_for_picture()
    tab.page.go_back()
    tab.page.wait_for_url(url)
    assert tab.page.locator(".file-frame").count() == 0
    tab.page.go_forward()
    tab.page.go_forward()
    selected = tab.page.locator('[role=treeitem][aria-selected="true"]')
    tab.wait_until(lambda: selected.first.get_attribute("data-path") == "/value")


def test_small_pictures_are_of_the_files(tab: Tab, serve: Serve, scans: Path) -> None:
    tab.open(serve(scans) + "/view/")
    pictures = tab.page.locator(".row img")
    tab.wait_until(lambda: pictures.count() == 3)
    loaded = "images => images.every(each => each.naturalWidth > 0)"
    tab.wait_until(lambda: pictures.evaluate_all(loaded))
    assert tab.page.get_by_role("link", name="older").locator("img").count() == 0


def test_the_last_files_are_remembered(tab: Tab, serve: Serve, scans: Path) -> None:
    url = serve(scans) + "/view/"
    for name in ("scan_1.nxs", "older/scan_0.nxs"):
        tab.open(f"{url}?file={name}")
        tab.page.get_by_role("treeitem", name="entry").first.wait_for()
    tab.open(url)
    recent = tab.page.get_by_role("region", name="Last opened")
    assert recent.get_by_role("link").all_inner_texts() == ["scan_0.nxs", "scan_1.nxs"]
    recent.get_by_role("button", name="Forget these files").click()
    recent.wait_for(state="detached")


def test_on_a_telephone_the_list_and_the_file_are_two_screens(
    tabs: Callable[..., Tab], serve: Serve, scans: Path
) -> None:
    tab = tabs(size=PHONE, has_touch=True)
    tab.open(serve(scans) + "/view/")
    tab.page.get_by_text("scan_1.nxs").tap()
    tab.wait_for_picture()
    assert tab.page.locator(".row").first.is_hidden()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    tab.page.get_by_role("button", name="Back to the list").tap()
    tab.page.get_by_role("link", name=re.compile("scan_2")).wait_for()
