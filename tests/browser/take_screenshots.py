"""The pictures of the documentation: `python -m tests.browser.take_screenshots` writes them anew.

It takes Chromium, Playwright (extra `test-browser`) and the page (`asgihive viewer build`).
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from asgihive.cli.demo_files import write_demo
from asgihive.service import H5App
from benchmarks.chromium import find_chromium, start_browser
from tests.browser.browsing import PHONE, Tab, build_page
from tests.service.servers import serving

FOLDER = Path(__file__).parents[2] / "docs" / "images"

# Two of the sample files have a small picture.
_SMALL_PICTURES = """() => {
    const pictures = [...document.images].filter(each => each.complete && each.naturalWidth);
    return pictures.length >= 2;
}"""

_WINDOW = {"width": 1100, "height": 680}


@dataclass(frozen=True, slots=True)
class Screenshot:
    """One picture.

    Attributes:
        name: of the file, without its ending.
        address: behind that of the page.
        awaited: what is there when the page is.
        size: of the window.
        is_dark: whether the browser asks for dark colours.
    """

    name: str
    address: str
    awaited: str
    size: dict[str, int]
    is_dark: bool = False


SCREENSHOTS = (
    Screenshot("viewer-files", "", "text=demo.nxs", _WINDOW),
    Screenshot("viewer-image", "?file=demo.nxs&path=/entry/images", "canvas", _WINDOW),
    Screenshot("viewer-curve", "?file=demo.nxs&path=/entry/scan", "text=energy (keV)", _WINDOW),
    Screenshot("viewer-dark", "?file=demo.nxs&path=/entry/images", "canvas", _WINDOW, is_dark=True),
    Screenshot("viewer-phone", "", "text=demo.nxs", PHONE),
)


def take_screenshots(browser: Any, url: str, folder: Path) -> None:
    """Write all pictures.

    Args:
        browser: Playwright's.
        url: of a service over the sample files, without a slash at its end.
        folder: for the files, which are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for each in SCREENSHOTS:
        with _opening(browser, each) as tab:
            tab.open(f"{url}/view/{each.address}")
            tab.page.locator(each.awaited).first.wait_for()
            tab.page.wait_for_function(_SMALL_PICTURES)
            if each.awaited == "canvas":
                tab.wait_for_picture()
            taken = tab.page.screenshot(animations="disabled")
            _write_small(taken, folder / f"{each.name}.png")


@contextmanager
def _opening(browser: Any, shot: Screenshot) -> Iterator[Tab]:
    colours = "dark" if shot.is_dark else "light"
    context = browser.new_context(viewport=shot.size, color_scheme=colours)
    try:
        yield Tab(context.new_page())
    finally:
        context.close()


def _write_small(taken: bytes, path: Path) -> None:
    """Write a picture with a palette, of which a page has few enough colours."""
    with Image.open(io.BytesIO(taken)) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(path, optimize=True)


def main() -> None:
    """Write the pictures of the documentation."""
    executable = find_chromium()
    if executable is None or (reason := build_page()) is not None:
        sys.exit(f"no screenshots: {'there is no Chromium here' if executable is None else reason}")
    with tempfile.TemporaryDirectory() as root:
        write_demo(root)
        with serving(H5App(root), "uvicorn-httptools") as url, start_browser(executable) as browser:
            take_screenshots(browser, url, FOLDER)


if __name__ == "__main__":
    main()
