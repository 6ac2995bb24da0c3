"""Settings: defaults, bounds, and how environment variables are read."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgihive.settings import ENVIRONMENT_PREFIX, H5Settings, parse_boolean, parse_list

NUMBERS = [each for each in dataclasses.fields(H5Settings) if each.type in {int, float}]


def test_defaults_are_those_that_the_design_promises() -> None:
    settings = H5Settings()
    assert settings.chunk_cache_bytes == 256 * 2**20
    assert settings.answer_cache_bytes == 32 * 2**20
    assert settings.max_open_files == 128
    assert settings.decode_lanes >= 1
    assert settings.read_ahead_bytes == 32 * 2**20
    assert settings.max_response_bytes == 8 * 2**30
    assert settings.max_waiting_requests == 1000
    assert settings.read_timeout_seconds == 60
    assert settings.follow_symlinks is False
    assert settings.cors_origins == ()
    assert settings.cache_control == "no-cache"
    assert settings.compress_over_bytes == 1024
    assert settings.compress_arrays is False


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        H5Settings().max_open_files = 1  # type: ignore[misc]


def test_every_setting_says_its_purpose() -> None:
    assert all(each.metadata["purpose"] for each in dataclasses.fields(H5Settings))


@pytest.mark.parametrize("name", [each.name for each in NUMBERS])
@pytest.mark.parametrize("value", [-1, True, "1", None, float("nan"), float("inf")])
def test_a_number_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(
        ValueError, match=rf"{name} is .*: a (whole )?number of at least .* is accepted"
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
