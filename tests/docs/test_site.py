"""The pages as a site: every link holds, nothing is warned of, and nothing comes from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import asgihive

_ROOT = Path(__file__).parents[2]
_PATIENCE = 300.0  # seconds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="pip install 'asgihive[docs-site]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class _Reader(HTMLParser):
    """What a page links to and loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"} and value:
                self.places.add(value)
            elif name == "href" and tag == "a" and value:
                self.links.append(value)
            elif name in {"src", "href"} and value and tag != "a":
                self.loaded.append(value)


def test_every_link_of_every_page_holds(site: Path) -> None:
    pages = {each: _Reader(each.read_text("utf-8")) for each in site.rglob("*.html")}
    assert len(pages) > 15
    lost = []
    for page, read in pages.items():
        if page.name == "404.html":  # its links begin at the root of the server
            continue
        for link in read.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            known = pages.get(target)
            missing_place = parts.fragment and known and unquote(parts.fragment) not in known.places
            if not target.is_file() or missing_place:
                lost.append(f"{page.relative_to(site)}: {link}")
    assert not lost


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = _Reader(page.read_text("utf-8")).loaded
        assert not [each for each in loaded if urlsplit(each).netloc], page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "reference.html").read_text("utf-8")
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text, re.DOTALL)
    words = " ".join(re.sub(r"<[^>]*>", " ", each) for each in headings).split()
    assert set(asgihive.__all__) <= set(words)


def test_tables_and_lists_are_what_they_are_in_the_repository(site: Path) -> None:
    text = (site / "index.html").read_text("utf-8")
    listed = re.search(r"<li>\s*<p><code>format</code>.*?<table>.*?msgpack-numpy", text, re.DOTALL)
    assert listed
    assert "|---" not in text
    assert not re.search(r"<p>[^<]*\n- ", text)
