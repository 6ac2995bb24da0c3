"""Standard output that cannot be written: a full disk, a reader that has gone, none at all."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.cli.processes import PATIENCE, Server

FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="Linux has /dev/full")

INSPECT, ROUTES = ("inspect", "x.h5"), ("routes", "app.py")
COMMANDS = {
    "help": ("--help",),
    "help of a command": ("serve", "--help"),
    "version": ("--version",),
    "no command": (),
    "inspect": INSPECT,
    "routes": ROUTES,
    "graph": ("graph", "app.py"),
    "new": ("new", "notes"),
    "serve": ("serve", ".", "--port", "0"),
    "demo": ("demo", "--port", "0"),
}
# One that ends at once, one that serves.
FAST = ("version", "serve")
each_command = pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(arguments, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, arguments in COMMANDS.items()
    ],
)


@pytest.fixture
def here(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (directory / "app.py").write_text("from asgihive import H5App\napp = H5App('.')\n")
    monkeypatch.chdir(directory)
    return directory


def shell(line: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `asgihive` stands for the command."""
    command = f'asgihive() {{ "{sys.executable}" -m asgihive "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command, "bash", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@each_command
def test_a_full_disk_is_told_in_one_line(here: Path, arguments: tuple[str, ...]) -> None:
    done = shell(f'asgihive "$@" > {FULL}', *arguments)
    assert done.returncode == 1
    prefix, _, rest = done.stderr.partition(": error: ")
    assert prefix == "asgihive"
    assert rest == "standard output cannot be written: No space left on device\n"


@each_command
def test_a_reader_that_has_gone_ends_a_command_quietly(
    here: Path, arguments: tuple[str, ...]
) -> None:
    done = shell('{ sleep 0; asgihive "$@"; echo "code $?" >&2; } | true', *arguments)
    assert done.stderr in {"code 0\n", ""}


@pytest.mark.slow
def test_a_reader_that_goes_after_a_line(here: Path) -> None:
    done = shell('asgihive "$@" | head -n 1', "serve", "--help")
    assert done.stdout.startswith("usage: asgihive serve")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        INSPECT,
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (ROUTES, ("--help",), ("--version",))
        ),
    ],
)
def test_no_output_at_all(here: Path, arguments: tuple[str, ...]) -> None:
    done = shell('asgihive "$@" >&-', *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_complaints_that_cannot_be_written_end_all_the_same(here: Path) -> None:
    done = shell(f'asgihive "$@" 2> {FULL}', "serve", "missing")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("log", ["text", pytest.param("json", marks=pytest.mark.slow)])
def test_a_log_that_cannot_be_written_stops_no_answer(
    directory: Path, log: str, workers: str
) -> None:
    """The reader goes after the first line, which says where the service is."""
    options = ["--port", "0", "--access-log", log, "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "asgihive", "serve", str(directory), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        server = Server(process)
        url = server.read_until(r"http://[0-9.:]+/")[0]
        process.stdout.close()
        for _ in range(8):
            assert httpx.get(url, timeout=PATIENCE).text == "ok"
    finally:
        process.terminate()
        # Closed above, it cannot be read by `communicate`.
        process.stdout = None
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert 1 <= said.count("Broken pipe") == said.count("\n") <= int(workers)


@pytest.mark.slow
def test_a_log_on_a_full_disk_goes_on_when_there_is_room(directory: Path, tmp_path: Path) -> None:
    """A limit of the size of files stands for the disk: EFBIG is one of its errors."""
    log = tmp_path / "log"
    limit = "import resource, signal, sys; "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY)); "
    limit += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "from asgihive.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["serve", str(directory), "--port", "0", "--access-log", "text"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", limit, *arguments],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            while "http://" not in log.read_text():
                assert process.poll() is None
            url = log.read_text().split(" at ")[1].split()[0]
            for _ in range(20):
                assert httpx.get(url, timeout=PATIENCE).text == "ok"
            size = log.stat().st_size
            assert size <= 400
            os.truncate(log, 0)
            output.seek(0)
            assert httpx.get(url, timeout=PATIENCE).text == "ok"
            assert '"GET / HTTP/1.1" 200' in log.read_text()
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert said.count("\n") == 1
    assert "File too large" in said
