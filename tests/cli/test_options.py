"""The settings as options: names, defaults, sizes, precedence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive import cli
from asgihive.cli import options
from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings, describe_settings, parse_size

FIELDS = {
    name: each for name, each in describe_settings(H5Settings).items() if not each.reading.is_secret
}


def parsed(*arguments: str) -> H5Settings:
    return options.read_options(cli.parse_arguments(["serve", ".", *arguments])).settings


SAMPLES: dict[object, tuple[str, object]] = {
    int: ("1024", 1024),
    float: ("2.5", 2.5),
    str: ("private", "private"),
    "cors_origins": ("https://a.example", ("https://a.example",)),
    "frame_origins": ("https://a.example", ("https://a.example",)),
    "allowed_hosts": ("data.example.org", ("data.example.org",)),
    "max_in_flight_bytes": ("1MiB", 1 << 20),
    "compute": ("dask://127.0.0.1:8786", "dask://127.0.0.1:8786"),
    "compute_root": ("/data", "/data"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_an_option(name: str) -> None:
    singular = {
        "cors_origins": "cors",
        "allowed_hosts": "allowed-host",
        "frame_origins": "frame-origin",
    }
    option = "--" + singular.get(name, name).replace("_", "-")
    if FIELDS[name].base is bool:
        assert getattr(parsed(option), name) is True
        assert getattr(parsed(option.replace("--", "--no-", 1)), name) is False
    else:
        words = FIELDS[name].choices
        sample = SAMPLES.get(name) or SAMPLES[FIELDS[name].base]
        text, value = (words[-1], words[-1]) if words else sample
        assert getattr(parsed(option, text), name) == value


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_help_shows_every_setting_with_its_purpose_and_default(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for each in FIELDS.values():
        assert f"--{each.option}" in shown
        assert each.description in shown
    assert "(default: 256MiB)" in shown
    assert "--token" not in shown
    assert ENVIRONMENT_PREFIX in shown


def test_settings_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed() == H5Settings()
    monkeypatch.setenv("ASGIHIVE_MAX_OPEN_FILES", "7")
    monkeypatch.setenv("ASGIHIVE_FOLLOW_SYMLINKS", "yes")
    assert (parsed().max_open_files, parsed().follow_symlinks) == (7, True)
    given = parsed("--max-open-files", "9", "--no-follow-symlinks")
    assert (given.max_open_files, given.follow_symlinks) == (9, False)


def test_cors_origins_add_up() -> None:
    given = parsed("--cors", "https://a.example", "--cors", "http://localhost:5173")
    assert given.cors_origins == ("https://a.example", "http://localhost:5173")
    assert parsed("--cors", "*").cors_origins == ("*",)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("512B", 512),
        ("32M", 32 * 2**20),
        ("256MiB", 256 * 2**20),
        ("256mib", 256 * 2**20),
        ("2 GiB", 2 * 2**30),
        ("1T", 2**40),
        ("5KB", 5000),
        ("5MB", 5_000_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.5G", "1X", "1iB", "1e6", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        parse_size(text)


@given(st.integers(0, 2**60))
def test_a_size_reads_back_as_it_is_shown(size: int) -> None:
    assert parse_size(options.format_size(size)) == size
