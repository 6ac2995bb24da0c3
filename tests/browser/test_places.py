"""The page with a token, below prefixes, behind nginx, on a phone, in the dark, for everyone."""

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.browsing import PHONE, SOURCE, Tab
from tests.cli.processes import running
from tests.cli.site import needs_nginx, nginx, written_site

Serve = Callable[..., str]
Tabs = Callable[..., Tab]

IMAGE = "view/?file=demo.nxs&path=/entry/images"

# Of axe-core, what is not to be found.
_SERIOUS = {"serious", "critical"}

# What it finds in h5web 17 itself, as a rule and a selector.
_OF_H5WEB = {
    # `aria-checked` on tabs that behave as radio buttons.
    "aria-allowed-attr": '[role="tablist"][aria-label="Viewer mode"] > [role="tab"]',
    # The two tabs above the tree are in no list of tabs.
    "aria-required-parent": '[role="tab"]:is([aria-label="Explorer"], [aria-label="Search"])',
}
_RUN_AXE = """async (ofH5web) => {
  const found = await axe.run(document);
  return found.violations.flatMap(({id, impact, nodes}) => {
    const isOurs = ({target}) => {
      const element = document.querySelector(target[0]);
      return !(id in ofH5web && element.closest("#h5w-main-area, #h5w-sidebar") !== null
        && element.matches(ofH5web[id]));
    };
    const html = nodes.filter(isOurs).map(each => each.html.slice(0, 200));
    return html.length > 0 ? [{id, impact, html}] : [];
  });
}"""


def test_a_token_is_asked_for_once(tabs: Tabs, serve: Serve, demo: Path) -> None:
    tab = tabs()
    tab.allow("status of 401")
    url = serve(demo, token="secret")
    tab.open(f"{url}/")
    field = tab.page.get_by_role("textbox", name="Token")
    field.fill("wrong")
    field.press("Enter")
    tab.page.get_by_text("not the", exact=False).first.wait_for()
    field.fill("secret")
    field.press("Enter")
    tab.page.get_by_text("demo.nxs").first.click()
    tab.wait_for_picture()
    assert "secret" not in tab.page.url
    tab.page.reload()  # this tab knows it
    tab.wait_for_picture()
    other = tabs()
    other.allow("status of 401")
    other.open(f"{url}/{IMAGE}")
    other.page.get_by_role("textbox", name="Token").wait_for()


@pytest.mark.parametrize("kind", ["prefix", "root_path"])
def test_below_a_prefix(tab: Tab, serve: Serve, demo: Path, kind: str) -> None:
    if kind == "root_path":
        # As behind a proxy that takes the prefix off: the server adds it again.
        url = serve(demo, root_path="/deep/h5")
        tab.open(f"{url}/{IMAGE}")
        tab.wait_for_picture()
        return
    with running("serve", str(demo), "--port", "0", "--prefix", "/deep/h5") as server:
        tab.open(server.url)
        tab.page.get_by_text("demo.nxs").first.click()
        tab.wait_for_picture()
        assert "/deep/h5/view/?file=demo.nxs" in tab.page.url


@needs_nginx
def test_behind_nginx(tab: Tab, demo: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="site-") as name:
        folder = Path(name)
        with running("serve", str(demo), "--uds", str(folder / "replica")):
            site = written_site(folder, "127.0.0.1:9")
            port = _find_free_port()
            text = site.read_text()
            listening = f"listen unix:{folder}/nginx;"
            assert listening in text
            site.write_text(text.replace(listening, f"{listening} listen 127.0.0.1:{port};"))
            with nginx(site):
                tab.open(f"http://127.0.0.1:{port}/")
                tab.page.get_by_text("demo.nxs").first.click()
                tab.wait_for_picture()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_on_a_phone(tabs: Tabs, url: str) -> None:
    tab = tabs(size=PHONE, has_touch=True, is_mobile=True)
    tab.open(url)
    tab.page.get_by_text("demo.nxs").first.tap()
    tab.wait_for_picture()
    picture = tab.page.locator("canvas").first.bounding_box()
    assert picture["width"] > PHONE["width"] * 0.4, "the tree or the axes leave it no room"
    assert picture["height"] > PHONE["height"] * 0.35
    tree = tab.page.get_by_role("tree")
    assert tree.is_hidden()
    tab.page.get_by_role("button", name="Toggle sidebar", pressed=False).tap()
    tab.page.get_by_role("button", name="Toggle sidebar", pressed=True).wait_for()
    tab.page.get_by_role("treeitem", name="entry").tap()
    tab.page.get_by_role("treeitem", name="title").tap()
    tree.wait_for(state="hidden")
    tab.page.get_by_role("button", name="Toggle sidebar", pressed=False).wait_for()
    tab.wait_until(lambda: tab.page.url.endswith("path=/entry/title"))
    for _ in range(2):
        width = tab.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], "the page is wider than the screen"
        tab.open(url)
        tab.page.get_by_text("demo.nxs").first.wait_for()


def test_in_the_dark(tabs: Tabs, url: str) -> None:
    for dark in (False, True):
        tab = tabs(dark=dark)
        tab.open(url)
        tab.page.get_by_text("demo.nxs").first.wait_for()
        brightness = float(np.median(tab.get_pixels("body")))
        assert (brightness < 96) == dark


@pytest.fixture
def axe() -> str:
    script = SOURCE / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.skip("axe-core is not installed: run `asgihive viewer build`")
    return script.read_text(encoding="utf-8")


def find_barriers(tab: Tab, axe: str) -> list[Any]:
    tab.page.evaluate(axe)
    return [each for each in tab.page.evaluate(_RUN_AXE, _OF_H5WEB) if each["impact"] in _SERIOUS]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_is_a_serious_barrier(tabs: Tabs, url: str, axe: str, dark: bool) -> None:
    tab = tabs(dark=dark)
    tab.open(url)
    tab.page.get_by_text("demo.nxs").first.wait_for()
    assert find_barriers(tab, axe) == []
    tab.page.get_by_text("demo.nxs").first.click()
    tab.wait_for_picture()
    assert find_barriers(tab, axe) == []
    tab.allow("status of 404")
    tab.open(f"{url}/view/?file=no.h5")
    tab.page.get_by_role("alert").first.wait_for()
    assert find_barriers(tab, axe) == []


def test_without_a_connection(tab: Tab, url: str, demo: Path) -> None:
    """Nothing comes from anywhere but the service."""
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.open(f"{url}/{IMAGE}")
    tab.wait_for_picture()
    assert len(asked) > 5
    assert [each for each in asked if not each.startswith((url, "data:", "blob:"))] == []
