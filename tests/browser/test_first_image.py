"""From the address that is printed to a picture on the screen."""

import pytest

from tests.browser.browsing import Tab
from tests.cli.processes import running


@pytest.mark.usefixtures("chromium")
def test_the_demo_ends_with_an_image(tab: Tab) -> None:
    with running("demo", "--port", "0") as server:
        tab.open(server.url)
        tab.wait_for_picture()


def test_the_address_leads_to_the_files_and_to_an_image(tab: Tab, url: str) -> None:
    tab.open(url)
    assert tab.page.url == f"{url}/view/"
    tab.page.get_by_text("demo.nxs").first.click()
    tab.wait_for_picture()


def test_a_deep_link_survives_a_reload(tab: Tab, url: str) -> None:
    tab.open(f"{url}/view/?file=demo.nxs&path=/entry/scan")
    for _ in range(2):
        tab.page.get_by_text("energy (keV)").first.wait_for()
        tab.page.reload()


def test_nothing_is_asked_for_twice(tab: Tab, url: str) -> None:
    """React would begin the view anew, with all its requests, while something above it waits."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open(f"{url}/view/?file=demo.nxs&path=/entry/images")
    tab.wait_for_picture()
    of_h5web = [each for each in asked if any(f"/{r}?" in each for r in ("meta", "attr", "data"))]
    assert len(of_h5web) > 3
    assert sorted(set(of_h5web)) == sorted(of_h5web)
