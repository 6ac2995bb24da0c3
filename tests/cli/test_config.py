"""`--config FILE`: its keys, their values, and who wins over whom."""

from pathlib import Path

import pytest

from asgihive import cli
from asgihive.cli import options
from asgihive.cli.options import ServerCommand
from asgihive.settings import ENVIRONMENT_PREFIX
from tests.cli.processes import complaint


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "asgihive.toml"


def given(file: Path, *arguments: str) -> ServerCommand:
    parsed = cli.parse_arguments(["serve", "--config", str(file), *arguments])
    return options.read_options(parsed)


def test_every_option_may_be_in_the_file(file: Path, directory: Path) -> None:
    file.write_text(
        """
        directory = "data"
        host = "0.0.0.0"
        port = 8080
        uds = "socket"
        workers = 3
        prefix = "/h5/"
        graceful-seconds = 60
        access-log = "json"
        log-level = "info"
        cors = ["https://a.example", "http://localhost:5173"]
        chunk-cache-bytes = "2GiB"
        answer-cache-bytes = 1048576
        send-timeout-seconds = 2.5
        read-timeout-seconds = 30
        follow-symlinks = true
        token = "open-sesame"
        """
    )
    read = given(file)
    server, settings = read.server, read.settings
    assert read.directory == str(directory)
    assert (server.host, server.port, server.workers, server.prefix) == ("0.0.0.0", 8080, 3, "/h5")
    assert server.uds == str(file.parent / "socket")
    assert (server.graceful_seconds, server.access_log, server.log_level) == (60, "json", "info")
    assert settings.cors_origins == ("https://a.example", "http://localhost:5173")
    assert (settings.chunk_cache_bytes, settings.answer_cache_bytes) == (2 << 30, 1 << 20)
    assert (settings.send_timeout_seconds, settings.read_timeout_seconds) == (2.5, 30.0)
    assert settings.follow_symlinks
    assert settings.token == "open-sesame"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    file: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("max-open-files = 1\nmax-chunk-bytes = 1\ndecode-lanes = 1\nport = 1\n")
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}MAX_CHUNK_BYTES", "2")
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}DECODE_LANES", "2")
    read = given(file, str(directory), "--decode-lanes", "3", "--port", "3")
    settings = read.settings
    assert (settings.max_open_files, settings.max_chunk_bytes, settings.decode_lanes) == (1, 2, 3)
    assert read.server.port == 3


def test_a_switch_of_the_file_can_be_turned_off(file: Path, directory: Path) -> None:
    file.write_text("follow-symlinks = true\nmetrics = false\n")
    settings = given(file, str(directory), "--no-follow-symlinks", "--metrics").settings
    assert (settings.follow_symlinks, settings.metrics) == (False, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 8080", "there is no option 'prot' (did you mean port?)"),
        ("chunk_cache_bytes = 1", "(did you mean chunk-cache-bytes?)"),
        ("xyzzy = 1", "there is no option 'xyzzy'; there is: host, port"),
        ("config = 'other.toml'", "there is no option 'config'"),
        ("[server]\nport = 1", "there is no option 'server'"),
        ("port = 65536", "port is 65536: a whole number from 0 to 65535 is accepted"),
        ("port = true", "port is True: a whole number from 0"),
        ("port = {a = 1}", "port is {'a': 1}: a whole number from 0"),
        ("token = ['abc']", "token cannot be used: letters, digits"),
        ("cors = '*'", "cors is '*': a list of texts is accepted"),
        ("cors = ['a']", "cors is 'a': an origin such as"),
        ("cors = ['https://a.example/']", "cors is 'https://a.example/': an origin such as"),
        ("metrics = 1", "metrics is 1: true or false is accepted"),
        ("access-log = 'xml'", "access-log is 'xml': one of auto, text, json, off is accepted"),
        ("max-open-files = 1.5", "max-open-files is 1.5: a whole number from"),
        ("max-open-files = 0", "max-open-files is 0: a whole number from 1"),
        ("read-timeout-seconds = 'long'", "read-timeout-seconds is 'long': a number is accepted"),
        ("directory = 'missing'", "missing': no such directory"),
        ("port = ", "is no TOML: "),
        ("port = 1\nport = 2", "is no TOML: "),
    ],
)
def test_what_is_wrong_with_a_file(
    text: str, words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert words in complaint(capsys, ["serve", ".", "--config", str(file)])


def test_an_origin_of_the_environment_is_no_better(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASGIHIVE_CORS_ORIGINS", "viewer.example")
    line = complaint(capsys, ["serve", str(directory)])
    assert "ASGIHIVE_CORS_ORIGINS is 'viewer.example': an origin such as" in line


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, folder, binary = tmp_path / "missing.toml", tmp_path, tmp_path / "binary.toml"
    binary.write_bytes(b"port = '\xff'")
    for path, words in (
        (missing, "No such file"),
        (folder, "Is a directory"),
        (binary, "is no TOML"),
    ):
        line = complaint(capsys, ["serve", ".", "--config", str(path)])
        assert str(path) in line
        assert words in line


def test_a_secret_is_in_no_complaint(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("token = 'open sesame'")
    line = complaint(capsys, ["serve", ".", "--config", str(file)])
    assert "token" in line
    assert "sesame" not in line


def test_a_demo_has_no_directory_of_its_own(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("directory = '.'")
    assert "no option 'directory'" in complaint(capsys, ["demo", "--config", str(file)])


def test_paths_begin_at_the_file(file: Path) -> None:
    file.write_text("ssl-certfile = 'certs/key.pem'\nssl-keyfile = '/etc/key.pem'")
    server = given(file, ".").server
    assert server.ssl_certfile == str(file.parent / "certs/key.pem")
    assert server.ssl_keyfile == "/etc/key.pem"
