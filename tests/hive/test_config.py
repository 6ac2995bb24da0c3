"""The configuration: where its values come from, and what each of them changes."""

import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgihive.hive import ConfigurationError, HiveConfig
from tests.asgi.exchange import http, run
from tests.hive.services import ROUTER, RecordingHive, config, write

pytestmark = pytest.mark.anyio


def plain() -> None:
    """What an external hook looks like."""


async def coroutine() -> None:
    """What an async one looks like."""


VALUES: dict[str, Any] = {
    "cornerstone_package_path": ("./a", "b.c"),
    "endpoint_package_paths": ("x", "y"),
    "api_prefix": "/api",
    "router_mount_automated": False,
    "hide_endpoint_container_in_api": True,
    "hide_endpoint_in_api": True,
    "hide_endpoint_in_tag": True,
    "pre_endpoint_setup": plain,
    "post_endpoint_setup": plain,
    "pre_endpoint_teardown": plain,
    "post_endpoint_teardown": plain,
    "async_pre_endpoint_setup": coroutine,
    "async_post_endpoint_setup": coroutine,
    "async_pre_endpoint_teardown": coroutine,
    "async_post_endpoint_teardown": coroutine,
}
TEXTS = {
    **{name: f"{__name__}:plain" for name in VALUES if VALUES[name] is plain},
    **{name: f"{__name__}:coroutine" for name in VALUES if VALUES[name] is coroutine},
    "cornerstone_package_path": "./a, b.c",
    "endpoint_package_paths": "x,y",
    "api_prefix": "/api",
    "router_mount_automated": "no",
    "hide_endpoint_container_in_api": "1",
    "hide_endpoint_in_api": "true",
    "hide_endpoint_in_tag": "on",
}


def test_the_fields_and_their_defaults() -> None:
    defaults = msgspec.structs.asdict(HiveConfig())
    assert defaults == {
        **dict.fromkeys(VALUES),
        "cornerstone_package_path": "./cornerstone",
        "endpoint_package_paths": (),
        "api_prefix": "",
        "router_mount_automated": True,
        "hide_endpoint_container_in_api": False,
        "hide_endpoint_in_api": False,
        "hide_endpoint_in_tag": False,
    }
    with pytest.raises(AttributeError):
        HiveConfig().api_prefix = "/x"  # type: ignore[misc]  # that is the question


@pytest.mark.parametrize("name", VALUES)
def test_each_name_from_every_source(name: str) -> None:
    wanted = HiveConfig(**{name: VALUES[name]})
    upper = {name.upper(): VALUES[name]}
    module = types.ModuleType("settings")
    vars(module).update(upper, something="else", _PRIVATE=1)
    assert HiveConfig.from_object(upper) == wanted
    assert HiveConfig.from_object(module) == wanted
    assert HiveConfig.from_object(type("Settings", (), upper)) == wanted
    assert HiveConfig.from_environment({f"HIVE_{name.upper()}": TEXTS[name], "PATH": "x"}) == wanted


def test_what_is_given_in_code_wins_over_the_environment() -> None:
    environment = {"HIVE_API_PREFIX": "/a", "HIVE_HIDE_ENDPOINT_IN_TAG": "1"}
    found = HiveConfig.from_environment(environment, api_prefix="/b")
    assert (found.api_prefix, found.hide_endpoint_in_tag) == ("/b", True)


@pytest.mark.parametrize("name", ["API_PREFX", "api_prefix", "NONSENSE"])
def test_unknown_names_are_errors_that_list_the_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match="ROUTER_MOUNT_AUTOMATED") as raised:
        HiveConfig.from_object({name: "x"})
    assert ("did you mean API_PREFIX?" in str(raised.value)) == (name != "NONSENSE")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("API_PREFX", "API_PREFIX"),
        ("ENDPOINT_PACKAGE_PATH", "ENDPOINT_PACKAGE_PATHS"),
        ("ENDPOINT_PATHS", "ENDPOINT_PACKAGE_PATHS"),
        ("HIDE_ENDPOINTS_IN_API", "HIDE_ENDPOINT_IN_API"),
        ("PRE_ENDPOINT_SETUPS", "PRE_ENDPOINT_SETUP"),
        ("ROUTER_MOUNT_AUTOMATIC", "ROUTER_MOUNT_AUTOMATED"),
    ],
)
def test_misspelt_names_are_errors_everywhere(name: str, meant: str) -> None:
    for prefix, read in (
        ("", HiveConfig.from_object),
        ("", lambda values: HiveConfig.from_object(type("Settings", (), values))),
        ("HIVE_", HiveConfig.from_environment),
    ):
        words = rf"{prefix}{name} is no name.*\(did you mean {prefix}{meant}\?\)"
        with pytest.raises(ConfigurationError, match=words):
            read({f"{prefix}{name}": "x"})


def test_settings_may_have_names_of_their_own() -> None:
    """A module and a class may, and the environment, which other programs share."""
    own = {"DATABASE_URL": "sqlite://", "ENDPOINT_URL": "/", "PATH": Path, "API_KEY": "secret"}
    given = {**own, "API_PREFIX": "v1", "API_PREFIX_V2": "v2", "INFO": plain}
    module = types.ModuleType("settings")
    vars(module).update(given)
    wanted = HiveConfig(api_prefix="/v1")
    assert HiveConfig.from_object(module) == wanted
    assert HiveConfig.from_object(type("Settings", (), given)) == wanted
    environment = {"HIVE_HOME": "/opt/hive", "HIVE_CONF_DIR": "/etc", "HIVE_API_PREFIX": "v1"}
    assert HiveConfig.from_environment(environment) == wanted


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("api_prefix", None, "is accepted"),
        ("router_mount_automated", 1, "true or false"),
        ("endpoint_package_paths", 3, "a path"),
        ("endpoint_package_paths", (None,), "a path"),
        ("cornerstone_package_path", {"a": "b"}, "a path"),
        ("pre_endpoint_setup", "main:setup", "a function"),
        ("pre_endpoint_setup", coroutine, "give it as async_pre_endpoint_setup"),
        ("async_post_endpoint_teardown", plain, "as post_endpoint_teardown"),
    ],
)
def test_bad_values_say_what_is_accepted(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        HiveConfig(**{name: value})
    assert raised.value.field == name


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("HIDE_ENDPOINT_IN_API", "maybe", "true/1/yes/on"),
        ("PRE_ENDPOINT_SETUP", "main", "module:function"),
        ("PRE_ENDPOINT_SETUP", "no.such.module:f", "No module named"),
        ("PRE_ENDPOINT_SETUP", f"{__name__}:nothing", "nothing"),
        ("PRE_ENDPOINT_SETUP", f"{__name__}:coroutine", "async_pre_endpoint_setup"),
    ],
)
def test_bad_variables_are_named(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as raised:
        HiveConfig.from_environment({f"HIVE_{name}": text})
    assert name in str(raised.value).upper()


def test_the_prefix_has_one_slash_at_its_beginning_and_none_at_its_end() -> None:
    assert HiveConfig(api_prefix="/api/").api_prefix == "/api"
    assert HiveConfig(api_prefix="api/v1").api_prefix == "/api/v1"
    assert HiveConfig(api_prefix="/").api_prefix == ""


def test_paths_may_be_objects_or_several() -> None:
    several = HiveConfig(cornerstone_package_path=[Path("a"), "b"], endpoint_package_paths="c")
    assert (several.cornerstone_paths, several.endpoint_paths) == (("a", "b"), ("c",))
    assert HiveConfig(cornerstone_package_path=Path("a")).cornerstone_paths == ("a",)
    hash(several)


@pytest.mark.parametrize(
    ("fields", "prefix", "tag"),
    [
        ({}, "/endpoints/notes", "endpoints.notes"),
        ({"api_prefix": "/api/v1"}, "/api/v1/endpoints/notes", "endpoints.notes"),
        ({"hide_endpoint_container_in_api": True}, "/notes", "endpoints.notes"),
        ({"hide_endpoint_in_api": True}, "/endpoints", "endpoints.notes"),
        ({"hide_endpoint_in_tag": True}, "/endpoints/notes", "endpoints"),
        (
            {"hide_endpoint_container_in_api": True, "hide_endpoint_in_api": True},
            "",
            "endpoints.notes",
        ),
    ],
)
async def test_urls_and_tags(fields: dict[str, Any], prefix: str, tag: str, tmp_path: Path) -> None:
    assert HiveConfig(**fields).make_prefix("endpoints", "notes") == prefix
    assert HiveConfig(**fields).make_tag("endpoints", "notes") == tag
    write(tmp_path, {"endpoints/notes.py": ROUTER, "cornerstones/__init__.py": ""})
    hive = RecordingHive(config(**fields), base=tmp_path)
    async with hive.running():
        assert (await run(hive, http(f"{prefix}/"))).body == b"hello from NAME"
        (route,) = hive.route_records()
        assert (route.url, route.tag) == (f"{prefix}/", tag)


async def test_a_hook_mounts_where_the_hive_does_not(tmp_path: Path) -> None:
    hooks = """
    from asgihive.hive import EndpointHooks

    class EndpointHooksImpl(EndpointHooks):
        def setup(self):
            self.app.include_router(router, "/elsewhere")
    """
    text = ROUTER + "\n".join(line.removeprefix("    ") for line in hooks.splitlines())
    write(tmp_path, {"endpoints/notes.py": text, "cornerstones/__init__.py": ""})
    hive = RecordingHive(config(router_mount_automated=False), base=tmp_path)
    assert hive.route_records() == ()
    for _ in range(2):
        async with hive.running():
            assert (await run(hive, http("/elsewhere/"))).status == 200
            assert (await run(hive, http("/endpoints/notes/"))).status == 404
            assert [each.url for each in hive.route_records()] == ["/elsewhere/"]


async def test_two_hives_share_nothing(tmp_path: Path) -> None:
    """Not even the modules of the same folder."""
    counting = """
    from asgihive.asgi import Router

    router = Router()
    seen = []

    @router.get("/")
    async def count():
        seen.append(1)
        return len(seen)
    """
    write(tmp_path, {"endpoints/count.py": counting, "cornerstones/__init__.py": ""})
    first = RecordingHive(config(), base=tmp_path)
    second = RecordingHive(config(api_prefix="/two", hide_endpoint_in_tag=True), base=tmp_path)
    async with first.running(), second.running():
        for number in (b"1", b"2"):
            assert (await run(first, http("/endpoints/count/"))).body == number
        assert (await run(second, http("/two/endpoints/count/"))).body == b"1"
        assert (await run(second, http("/endpoints/count/"))).status == 404
        assert [each.tag for each in first.route_records()] == ["endpoints.count"]
        assert [each.tag for each in second.route_records()] == ["endpoints"]
