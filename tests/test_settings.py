"""Settings: defaults, bounds, and how environment variables are read."""

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive import settings
from asgihive.settings import (
    ENVIRONMENT_PREFIX,
    H5Settings,
    describe_settings,
    parse_boolean,
    parse_list,
    parse_origin,
)

SETTINGS = describe_settings(H5Settings)
NUMBERS = [name for name, each in SETTINGS.items() if each.base in {int, float}]


def test_defaults_are_those_that_the_design_promises() -> None:
    settings = H5Settings()
    assert settings.chunk_cache_bytes == 256 * 2**20
    assert settings.answer_cache_bytes == 32 * 2**20
    assert settings.max_open_files == 128
    assert settings.decode_lanes >= 1
    assert settings.max_response_bytes == 8 * 2**30
    assert settings.read_timeout_seconds == 60
    assert settings.follow_symlinks is False
    assert settings.cors_origins == ()
    assert settings.cache_control == "no-cache"
    assert settings.compress_arrays is False


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        H5Settings().max_open_files = 1  # type: ignore[misc]


def test_every_setting_says_its_purpose() -> None:
    for each in SETTINGS.values():
        assert re.fullmatch(r"[A-Z][^\n]*\.", each.description), each.name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, True, "1", None, float("nan"), float("inf")])
def test_a_number_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} is .*: a (whole )?number (of at least|from) .* is accepted$"
    ):
        H5Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        {"max_open_files": 1.5},
        {"cors_origins": "https://x"},
        {"follow_symlinks": 1},
        {"cache_control": None},
        {"cache_control": "no-cache\r\nx: y"},
        {"cache_control": "ä"},
    ],
)
def test_a_value_of_another_type_is_refused_by_name(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(given))} is .* is accepted"):
        H5Settings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_open_files", "7", 7),
        ("chunk_cache_bytes", "256MiB", 256 * 2**20),
        ("answer_cache_bytes", "3 kB", 3000),
        ("read_timeout_seconds", "0.5", 0.5),
        ("follow_symlinks", "Yes", True),
        ("cache_control", "max-age=60", "max-age=60"),
        ("cache_control", "", ""),
        (
            "cors_origins",
            "https://a.example, https://b.example,",
            ("https://a.example", "https://b.example"),
        ),
    ],
)
def test_each_type_is_read_from_the_environment(name: str, text: str, value: object) -> None:
    settings = H5Settings.from_environment({ENVIRONMENT_PREFIX + name.upper(): text})
    assert settings == H5Settings(**{name: value})  # type: ignore[arg-type]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGIHIVE_MAX_OPEN_FILES", "5")
    assert H5Settings.from_environment().max_open_files == 5
    assert H5Settings().max_open_files == 128


def test_what_is_given_in_code_wins_even_over_a_bad_variable() -> None:
    environment = {"ASGIHIVE_MAX_OPEN_FILES": "many"}
    assert H5Settings.from_environment(environment, max_open_files=3).max_open_files == 3


@pytest.mark.parametrize("name", ["max_open_files", "read_timeout_seconds", "follow_symlinks"])
def test_a_variable_that_cannot_be_converted_is_named(name: str) -> None:
    variable = ENVIRONMENT_PREFIX + name.upper()
    with pytest.raises(ValueError, match=f"{variable} is 'many'"):
        H5Settings.from_environment({variable: "many"})


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the warnings of a process that has warned of no variable yet."""
    settings._warn_of_unknown.cache_clear()  # for the life of a process, each is told once
    caplog.set_level(logging.WARNING, "asgihive.settings")
    return caplog


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ASGIHIVE_TOKN", "ASGIHIVE_TOKEN"),
        ("ASGIHIVE_token", None),
        ("ASGIHIVE_CORS", "ASGIHIVE_CORS_ORIGINS"),
        ("ASGIHIVE_MAX_OPEN_FILE", "ASGIHIVE_MAX_OPEN_FILES"),
        ("ASGIHIVE_FUZZ_SEED", None),
        ("ASGIHIVE_X\nY", None),
    ],
)
def test_an_unknown_variable_is_warned_of_once(
    warnings: pytest.LogCaptureFixture, name: str, meant: str | None
) -> None:
    environment = {name: "s3cret", "ASGIHIVE_DOCS": "no", "ASGIHIVE_": "", "ASGI": "", "HIVE_X": ""}
    for _ in range(2):
        assert H5Settings.from_environment(environment) == H5Settings(docs=False)
    (record,) = warnings.records
    assert (record.name, record.levelname) == ("asgihive.settings", "WARNING")
    message = record.getMessage()
    assert repr(name) in message
    assert "s3cret" not in message
    assert message.endswith(f" (did you mean {meant}?)" if meant else "ignored")


def test_known_variables_are_not_warned_of(warnings: pytest.LogCaptureFixture) -> None:
    given = {name: each.default for name, each in SETTINGS.items()}
    variables = {ENVIRONMENT_PREFIX + name.upper(): "" for name in SETTINGS}
    assert H5Settings.from_environment(variables, **given) == H5Settings()
    assert not warnings.records


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("*", "*"),
        ("https://viewer.example", "https://viewer.example"),
        ("HTTPS://Viewer.Example", "https://viewer.example"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("https://viewer.example:443", "https://viewer.example"),
        ("http://viewer.example:443", "http://viewer.example:443"),
        ("http://viewer.example:080", "http://viewer.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_origins_are_as_browsers_send_them(text: str, sent: str) -> None:
    assert parse_origin(text) == sent
    assert parse_origin(sent) == sent
    assert H5Settings(cors_origins=(text,)).cors_origins == (sent,)
    environment = {"ASGIHIVE_CORS_ORIGINS": f"{text}, http://b.example"}
    assert H5Settings.from_environment(environment).cors_origins == (sent, "http://b.example")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "viewer.example",
        "viewer.example:8000",
        "//viewer.example",
        "https://",
        "https://viewer.example/",
        "https://viewer.example/path",
        "https://viewer.example?",
        "https://viewer.example#",
        "https://me@viewer.example",
        "https://viewer.example:",
        "https://viewer.example:65536",
        "https://viewer.example:port",
        "https://*.example",
        "https://two words",
        "https://viewer.example\n",
        "https://münchen.example",
        "https://[",
        "null",
        "**",
    ],
)
def test_what_no_browser_sends_is_no_origin(text: str) -> None:
    accepted = r"an origin such as https://viewer\.example\.org .*, or \* is accepted"
    with pytest.raises(ValueError, match=f"^{accepted}$"):
        parse_origin(text)
    with pytest.raises(ValueError, match=f"^cors_origins is {re.escape(repr(text))}: {accepted}$"):
        H5Settings(cors_origins=("https://good.example", text))


def test_a_variable_without_a_scheme_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^ASGIHIVE_CORS_ORIGINS is 'viewer\.example': an origin such as"
    ):
        H5Settings.from_environment({"ASGIHIVE_CORS_ORIGINS": "viewer.example"})


@given(st.sampled_from(["1", "true", "yes", "on"]), st.booleans(), st.data())
def test_true_words_in_any_case(word: str, upper: bool, data: st.DataObject) -> None:
    blank = data.draw(st.text(" \t", max_size=2))
    assert parse_boolean(blank + (word.upper() if upper else word) + blank) is True


@pytest.mark.parametrize("word", ["0", "False", "no", " OFF "])
def test_false_words(word: str) -> None:
    assert parse_boolean(word) is False


@pytest.mark.parametrize("word", ["", "2", "truee", "y"])
def test_other_words_are_not_booleans(word: str) -> None:
    with pytest.raises(ValueError, match="are accepted"):
        parse_boolean(word)


@given(
    st.lists(
        st.text(st.characters(exclude_characters=",", exclude_categories=["Z", "C"]), min_size=1)
    )
)
def test_a_list_reads_back_what_commas_join(words: list[str]) -> None:
    assert parse_list(", ".join(words)) == tuple(words)
