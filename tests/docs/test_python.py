"""The page about Python: each of its programs reads from a real server."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.cli.processes import running
from tests.docs.page import Command, Page

PYTHON = Page("docs/python.md", ("python", "console"))
COMMANDS = [each for session in PYTHON.sessions() for each in session]
# Packages that are imported by others, or only by name.
ALSO = {
    "by_xarray.py": ("zarr", "aiohttp"),
    "by_zarr.py": ("aiohttp",),
    "by_dask.py": ("zarr", "aiohttp"),
}
SERVING = {"service.py", "make_data.py"}

PATIENCE = 180.0  # seconds: some of the packages take long to import

pytestmark = pytest.mark.slow  # a server and a client of some seconds each


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of the page's files."""
    folder = tmp_path_factory.mktemp("python")
    PYTHON.write_files(folder)
    subprocess.run([sys.executable, "make_data.py"], cwd=folder, check=True, timeout=PATIENCE)
    options = ("--port", "0", "--app-dir", str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with running("service:app", *options, module="uvicorn", patience=600) as server:
            yield server.url


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each.line)
def test_programs_print_what_the_page_says(url: str, command: Command) -> None:
    _, name = shlex.split(command.line)
    code = PYTHON.code()[name]
    imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    missing = [each for each in sorted(imported | {*ALSO.get(name, ())}) if find_spec(each) is None]
    if missing:
        pytest.skip(f"{missing} not installed: pip install 'asgihive[test-clients]'")
    code = code.replace("http://127.0.0.1:8000", url.rstrip("/"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == (command.output, "")


def test_every_program_is_tried() -> None:
    assert {shlex.split(each.line)[1] for each in COMMANDS} == PYTHON.code().keys() - SERVING
