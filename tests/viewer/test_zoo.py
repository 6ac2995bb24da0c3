"""Every dataset of the zoo as a picture: its pixels by cmap, or a refusal in words."""

import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from tests.viewer.pictures import paint
from tests.zoo import oracle
from tests.zoo.client import Asker
from tests.zoo.findings import Findings, ask, each_content

pytestmark = pytest.mark.anyio

LOW, HIGH = -3.0, 40.0
LIMITS = {"vmin": "-3", "vmax": "40", "nan": "red"}


def find_image(value: Any) -> Any:
    """The values that are shown without a selection; None where that is nothing."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim < 2 or not array.size:
        return None
    image = array[(0,) * (array.ndim - 2)]
    return image if max(image.shape) <= 1024 else None


def is_same(content: bytes, expected: Any) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        got = np.asarray(image.convert("RGBA"))
    with np.errstate(all="ignore"):
        numbers = expected.astype(np.float64)
    missing = np.isnan(numbers)
    if (got[missing] != (255, 0, 0, 255)).any() or got.shape[:2] != numbers.shape:
        return False
    if missing.any():  # there is one colour fewer for the numbers
        return True
    return bool((got == paint(numbers, LOW, HIGH)).all())


@each_content
async def test_each_dataset_as_an_image(zoo: Path, zoo_app: Any, file: str) -> None:
    findings, asker = Findings(file), Asker(zoo_app)
    for entity in oracle.datasets(zoo, file):
        answer = await ask(asker, "/image", file, path=entity.path, **LIMITS)
        image = None if entity.shape is None or entity.dtype is None else entity.value
        is_numeric = entity.dtype is not None and not entity.dtype.subdtype
        expected = find_image(image) if is_numeric else None
        good = answer.status_code == 422 and bool(answer.json()["message"])
        if expected is not None:
            good = answer.status_code == 200 and is_same(answer.content, expected)
        findings.check(good, ("/image", entity.path), answer)
    findings.report()


@each_content
async def test_each_dataset_as_a_plot(zoo: Path, zoo_app: Any, file: str) -> None:
    findings, asker = Findings(file), Asker(zoo_app)
    for entity in oracle.datasets(zoo, file):
        answer = await ask(asker, "/plot", file, path=entity.path)
        is_shown = (
            bool(entity.shape)
            and 0 not in (entity.shape or ())
            and entity.dtype is not None
            and entity.dtype.kind in "biuf"
        )
        good = answer.status_code == 422 and bool(answer.json()["message"])
        if is_shown:
            good = answer.status_code == 200 and ET.fromstring(answer.content) is not None
        findings.check(good, ("/plot", entity.path), answer, is_shown)
    findings.report()
