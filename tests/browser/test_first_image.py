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
