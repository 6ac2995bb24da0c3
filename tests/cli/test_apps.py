"""How APP is found, and what is said where it is not: `routes` stands for `graph` as well."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asgihive import cli
from tests.cli.processes import complaint
from tests.cli.services import SERVICE

Write = Callable[..., Path]
Output = pytest.CaptureFixture[str]

FILES = {
    **SERVICE,
    "pack/__init__.py": "",
    "pack/inner.py": "app = {}",
    "odd.name.py": "",
    "json.py": "app = None",
    "kinds.py": """\
        class Factory: ...
        async def later(): ...
        number = 5
        """,
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "APP"),
        (["mian:app"], ["no module 'mian'", "did you mean main?", "there is:", "kinds"]),
        (["pack.iner:app"], ["no module 'pack.iner'", "did you mean inner?"]),
        (["main.sub:app"], ["no module 'main.sub'", "main is a module, not a package"]),
        (["pack.gone.deep:app"], ["no module 'pack.gone'", "there is: inner"]),
        (["mian.py"], ["no file", "mian.py", "did you mean main.py?"]),
        (["no/such/main.py"], ["no file", "there is: nothing"]),
        (["cornerstones/"], ["'cornerstones/' is a folder", "main.py"]),
        (["odd.name.py"], ["'odd.name.py'", "no dot"]),
        (["json.py"], ["the name json is taken by", "json.py cannot be imported"]),
        (["main:ap"], ["main (", "main.py) has no 'ap'", "did you mean app?", "app (Hive)"]),
        (["main:app.lifespam"], ["has no 'lifespam'", "main"]),
        (["kinds"], ["has no 'app'", "there is: Factory, later, number"]),
        (["main:create"], ["main:create is a function: with --factory"]),
        (["kinds:Factory"], ["kinds:Factory is a class: with --factory"]),
        (["kinds:number", "--factory"], ["5", "a plain function is accepted"]),
        (["kinds:later", "--factory"], ["a plain function is accepted"]),
        (["kinds:Factory", "--factory"], ["of the type Factory", "no hive"]),
        (["pack.inner"], ["of the type dict", "a Hive, an H5App, a Router"]),
        ([":app"], ["module:attribute such as main:app"]),
        ([".main:app"], ["module:attribute such as main:app"]),
        (["main:app", "--app-dir", "nowhere"], ["'nowhere'", "no such folder"]),
        (["main.py", "--app-dir", "."], ["--app-dir goes with module:attribute"]),
    ],
)
def test_one_line_says_what_there_is(
    arguments: list[str], words: list[str], write: Write, capsys: Output
) -> None:
    write(FILES)
    before = list(sys.path)
    line = complaint(capsys, ["routes", *arguments])
    assert sys.path == before
    assert line.startswith("asgihive routes: error: ")
    for each in words:
        assert each in line


def failing(capsys: Output, *arguments: str) -> tuple[str, str]:
    """The end of the traceback, and the line that says what failed."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["routes", *arguments])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    tail, _, line = captured.err.rstrip("\n").rpartition("\n")
    assert "frozen" not in tail
    assert "apps.py" not in tail
    return tail, line


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_an_exception_of_the_users_module(
    text: str, raised: str, write: Write, capsys: Output
) -> None:
    root = write({"helper.py": f"\n{text}\n", "wrong.py": "import helper\napp = helper.app\n"})
    place = f"{root / 'helper.py'}"
    for app in ("wrong:app", "wrong.py"):
        tail, line = failing(capsys, app)
        assert line.startswith("asgihive routes: error: importing wrong failed at ")
        assert f"at {place}:2 with {raised}" in line
        assert f'File "{place}", line 2' in tail
        assert text.strip() in tail
        assert tail.splitlines()[-1] == raised


def test_an_exception_of_the_factory(write: Write, capsys: Output) -> None:
    root = write({"wrong.py": "def app():\n    return {}['key']\n"})
    tail, line = failing(capsys, "wrong:app", "--factory")
    assert f"calling wrong:app failed at {root / 'wrong.py'}:2 with KeyError: 'key'" in line
    assert "return {}['key']" in tail


def test_an_exception_of_a_component(write: Write, capsys: Output) -> None:
    root = write({**SERVICE, "cornerstones/auth.py": "\n\nimport no_such_package\n"})
    tail, line = failing(capsys, "main:app")
    place = root / "cornerstones" / "auth.py"
    assert f"error: cornerstones.auth ({place}): importing " in line
    assert "No module named 'no_such_package'" in line
    assert f'File "{place}", line 3' in tail


def test_a_configuration_that_cannot_be_used(write: Write, capsys: Output) -> None:
    root = write({"main.py": SERVICE["main.py"]})
    tail, line = failing(capsys, "main:app")
    assert "ConfigurationError: cornerstone_package_path is './cornerstones'" in line
    assert f"failed at {root / 'main.py'}:" in line
    assert "app = create()" in tail
