"""A filter is added as CONTRIBUTING.md says: by one file in the folder of filters."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgihive.hdf5 import filters
from asgihive.hdf5.filters.contract import BadChunk, as_bytes
from asgihive.hdf5.filters.pipeline import DECODERS, find_decoders, make_pipeline
from asgihive.hdf5.layout import Filter

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    section = CONTRIBUTING.read_text().partition("## Add a filter")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    (tmp_path / "backwards.py").write_text(code)
    monkeypatch.setattr(filters, "__path__", [*filters.__path__, str(tmp_path)])
    for each in find_decoders().values():
        monkeypatch.setitem(DECODERS, each.number, each)
    yield 40_001
    del sys.modules[f"{filters.__name__}.backwards"]


def test_it_is_found_and_undone(number: int) -> None:
    pipeline = make_pipeline((Filter(number, "backwards"),), 6)
    assert not pipeline.needs_library
    assert pipeline.decode(as_bytes(b"fedcba"), 0).tobytes() == b"abcdef"
    with pytest.raises(BadChunk, match="backwards gives 4 bytes, 6 are expected"):
        pipeline.decode(as_bytes(b"dcba"), 0)


def test_it_is_not_there_without_the_file() -> None:
    assert make_pipeline((Filter(40_001, "backwards"),), 6).needs_library
