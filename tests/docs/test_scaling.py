"""`docs/scaling.md`: its commands name what there is, and its code reads a store."""

import ast
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from asgihive import H5App
from benchmarks import model
from tests.cli.processes import PATIENCE
from tests.docs.page import Page
from tests.service.servers import serving

SCALING = Page("docs/scaling.md", ("python", "console"))
ROOT = Path(__file__).parents[2]


def test_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [each.line for session in SCALING.sessions() for each in session]
    compute, kubectl, serve = lines
    assert compute.startswith("python -m benchmarks.model ")
    monkeypatch.setattr(sys, "argv", shlex.split(compute)[2:])
    assert model.main() == 0
    assert "gzip_frames" in capsys.readouterr().out
    assert (ROOT / shlex.split(kubectl)[-1]).is_file()
    module, _, function = shlex.split(serve)[2].partition(":")
    source = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert function in {each.name for each in source.body if isinstance(each, ast.FunctionDef)}


def test_what_a_replica_takes() -> None:
    assert f"{model.REPLICA_MIB} MiB with the defaults" in SCALING.text


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("distributed") is None, reason="distributed is not installed: extra test-clients"
)
def test_the_code(tmp_path: Path) -> None:
    frames = np.arange(24, dtype="<u2").reshape(6, 2, 2)
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "scan.h5", "w") as file:
        file["stack"] = frames
    SCALING.write_files(tmp_path)
    script = tmp_path / "mean_image.py"
    with serving(H5App(tmp_path / "data"), "uvicorn-httptools") as url:
        script.write_text(script.read_text().replace("http://127.0.0.1:8000", url))
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True,
            timeout=4 * PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{frames.mean(axis=0)}\n"
