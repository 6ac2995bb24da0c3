"""The pictures of the documentation can be taken anew, and show what they are of."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.browser.take_screenshots import FOLDER, SCREENSHOTS, take_screenshots

MOST_BYTES = 1 << 20
"""Of all pictures in the repository."""


def test_they_are_taken(chromium: Any, url: str, tmp_path: Path) -> None:
    take_screenshots(chromium, url, tmp_path)
    for each in SCREENSHOTS:
        with Image.open(tmp_path / f"{each.name}.png") as picture:
            assert picture.size == (each.size["width"], each.size["height"])
            light = float(np.asarray(picture.convert("L")).mean())
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 16
        assert (light < 100) is each.is_dark, (each.name, light)


def test_those_of_the_documentation_are_few_and_small() -> None:
    stored = {each.stem: each.stat().st_size for each in FOLDER.glob("*.png")}
    assert set(stored) == {each.name for each in SCREENSHOTS}
    assert sum(stored.values()) < MOST_BYTES
