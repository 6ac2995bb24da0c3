"""Chromium by Playwright, for benchmarks and tests; Playwright is imported by `start_browser`."""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

# A container has neither a sandbox of Chromium's nor much shared memory, and no graphics card.
_FLAGS = (
    *("--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    # WebGL alone is drawn by SwiftShader: that it also draws the page, as Debian's flags have it,
    # takes 16 s of a processor where this takes 2 s (the 41 entities of the sample files).
    *("--disable-gpu-rasterization", "--disable-gpu-compositing"),
)

PICTURE_COLOURS = 64
"""A picture has that many colours, an empty canvas few."""


def find_chromium() -> str | None:
    """Return the path of Debian's Chromium, or of another one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def start_browser(executable: str) -> Iterator[Any]:
    """Start Chromium, until the end of the context.

    Playwright has an event loop in this thread until then, in which no other can run.

    Raises:
        ImportError: Playwright is not installed.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # where it is installed only

    # What it is told of this machine's proxies is not for 127.0.0.1.
    environment: dict[str, str | float | bool] = {
        name: each for name, each in os.environ.items() if "proxy" not in name.lower()
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=list(_FLAGS), env=environment
        )
        try:
            yield browser
        finally:
            browser.close()


def read_pixels(page: Any, selector: str = "canvas") -> npt.NDArray[np.uint8]:
    """Return what an element of a page looks like, as rows of red, green and blue."""
    from PIL import Image  # noqa: PLC0415  # where there is a browser only

    taken = page.locator(selector).first.screenshot()
    return np.asarray(Image.open(io.BytesIO(taken)).convert("RGB"))


def count_colours(page: Any, selector: str = "canvas") -> int:
    """Return how many colours an element has."""
    red, green, blue = np.moveaxis(read_pixels(page, selector).astype(np.uint32), -1, 0)
    # Numbers, not rows of three: these take 0.6 s to sort, which is waited for and measured.
    return len(np.unique(red << 16 | green << 8 | blue))
