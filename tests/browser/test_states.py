"""What the page says when something is wrong, and what it offers then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.browsing import SOURCE, Tab
from tests.browser.directories import write_image

Serve = Callable[..., str]

TOKEN = "a-token.of-the-tests"
DAMAGED = b"\x89HDF\r\n\x1a\n" + bytes(500)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file, a damaged one, and an empty folder."""
    write_image(tmp_path / "good.nxs")
    (tmp_path / "broken.h5").write_bytes(DAMAGED)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_an_empty_folder_says_so_and_leads_up(tab: Tab, serve: Serve, root: Path) -> None:
    tab.open(serve(root) + "/view/?dir=empty")
    tab.page.get_by_text("This folder is empty").wait_for()
    tab.page.get_by_role("link", name="Go up").click()
    tab.page.get_by_text("good.nxs").wait_for()


def test_a_folder_that_is_not_there_leads_up(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("404")
    tab.open(serve(root) + "/view/?dir=gone")
    tab.page.get_by_text("No such folder").wait_for()
    tab.page.get_by_role("link", name="Go up").click()
    tab.page.get_by_text("good.nxs").wait_for()


def test_a_file_that_comes_later_is_tried_again(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("404")
    tab.open(serve(root) + "/view/?file=late.nxs")
    tab.page.get_by_text("No such file").wait_for()
    write_image(root / "late.nxs")
    tab.page.get_by_role("button", name="Try again").click()
    tab.wait_for_picture()


def test_a_damaged_file_says_so_and_what_the_service_says(
    tab: Tab, serve: Serve, root: Path
) -> None:
    tab.allow("422")
    tab.open(serve(root) + "/view/?file=broken.h5")
    tab.page.get_by_text("This is no HDF5 file that can be read").wait_for()
    tab.page.get_by_text("What the service says").click()
    tab.page.get_by_text("not a readable HDF5 file").wait_for()
    tab.page.get_by_role("link", name="Show its folder").click()
    tab.page.get_by_role("link", name="good.nxs").click()
    tab.wait_for_picture()


def test_a_file_without_permission_says_so(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("403")
    # Tests may run as root, who reads everything.
    refusal = json.dumps({"message": "Permission denied: good.nxs"})

    def refuse(route: Any) -> None:
        route.fulfill(status=403, content_type="application/json", body=refusal)

    tab.page.route("**/meta?*", refuse)
    tab.open(serve(root) + "/view/?file=good.nxs")
    tab.page.get_by_text("You may not read this file").wait_for()


def test_a_path_that_is_not_there_leads_to_the_top(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("404|ServiceError: /no/such is not a valid path")
    tab.open(serve(root) + "/view/?file=good.nxs&path=/no/such")
    tab.page.get_by_text("There is nothing to show at").wait_for()
    tab.page.get_by_role("button", name="Go to the top of the file").click()
    tab.wait_for_picture()


def test_the_page_goes_on_when_the_service_is_back(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("ERR_INTERNET_DISCONNECTED|ServiceError: The service does not answer")
    tab.open(serve(root) + "/view/")
    tab.page.get_by_role("link", name="good.nxs").wait_for()
    tab.page.context.set_offline(True)
    tab.page.get_by_role("link", name="good.nxs").click()
    bar = tab.page.get_by_text("The service does not answer. The page asks again by itself.")
    bar.wait_for()
    tab.page.get_by_role("button", name="Try now").click()
    tab.page.context.set_offline(False)
    bar.wait_for(state="hidden")
    tab.wait_for_picture()


def test_a_token_is_asked_for_once_and_kept_for_the_tab(tab: Tab, serve: Serve, root: Path) -> None:
    tab.allow("401")
    tab.open(serve(root, token=TOKEN) + "/view/?file=good.nxs")
    dialog = tab.page.get_by_role("dialog", name="Enter the token")
    field = dialog.get_by_label("Token", exact=True)
    field.fill("another one")
    field.press("Enter")
    dialog.get_by_text("This is not the token").wait_for()
    field.fill(TOKEN)
    field.press("Enter")
    tab.wait_for_picture()
    assert dialog.count() == 0
    tab.page.reload()
    tab.wait_for_picture()
    assert dialog.count() == 0
    assert TOKEN not in tab.page.url
    assert tab.page.evaluate("localStorage.getItem('asgihive.token')") is None


def test_whoever_has_no_token_is_asked_again_when_they_want(
    tab: Tab, serve: Serve, root: Path
) -> None:
    tab.allow("401")
    tab.open(serve(root, token=TOKEN) + "/view/")
    dialog = tab.page.get_by_role("dialog", name="Enter the token")
    dialog.get_by_role("button", name="Cancel").click()
    tab.page.get_by_role("button", name="Enter a token").click()
    dialog.get_by_label("Token", exact=True).fill(TOKEN)
    dialog.get_by_role("button", name="Go on").click()
    tab.page.get_by_role("link", name="good.nxs").wait_for()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("place", ["", "?dir=empty", "?file=broken.h5", "?file=good.nxs"])
def test_axe_finds_nothing_in_the_page_around_h5web(
    tabs: Callable[..., Tab], serve: Serve, root: Path, place: str, dark: bool
) -> None:
    axe = SOURCE / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("axe-core is not installed: run `npm ci` in viewer/")
    tab = tabs(dark=dark)
    tab.allow("422")
    tab.open(serve(root) + "/view/" + place)
    tab.page.locator("canvas, .notice" if place else ".row").first.wait_for()
    tab.page.evaluate(axe.read_text())
    # h5web's own faults (tabs without a list of tabs) are not ours to mend.
    found = tab.page.evaluate("axe.run({exclude: [['[data-fullscreen-root]']]})")
    wrong = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
    assert wrong == []


def test_the_theme_is_that_of_the_system_until_one_is_chosen(
    tabs: Callable[..., Tab], serve: Serve, root: Path
) -> None:
    tab = tabs(dark=True)
    tab.open(serve(root) + "/view/?file=good.nxs")
    tab.wait_for_picture()
    theme = tab.page.locator("html")
    assert theme.get_attribute("data-theme") == "dark"
    picture = tab.get_pixels()
    tab.page.keyboard.press("t")
    assert theme.get_attribute("data-theme") == "light"
    tab.page.reload()
    tab.wait_for_picture()
    assert theme.get_attribute("data-theme") == "light"
    # The picture's colours say values, and stay.
    middle = tuple(length // 2 for length in picture.shape[:2])
    tab.wait_until(lambda: abs(tab.get_pixels()[middle].astype(int) - picture[middle]).max() < 8)
