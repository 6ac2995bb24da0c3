"""A real browser over a real server; skipped where there is none.

A test takes `open_tab`, which opens `http://…/view/` of the sample files, or `serve` and `tab` by
themselves. All of them are slow.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from asgihive.cli.demo_files import write_demo
from asgihive.service import H5App
from asgihive.settings import H5Settings
from benchmarks.chromium import find_chromium, start_browser
from tests.browser.browsing import DESKTOP, Tab, build_page
from tests.service import servers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(folder):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """The browser, over a page that is built as its sources are."""
    pytest.importorskip("playwright", reason="playwright is not installed: the extra test-browser")
    executable = find_chromium()
    if executable is None:
        pytest.skip("there is no Chromium here")
    if (reason := build_page()) is not None:
        pytest.skip(reason)
    with start_browser(executable) as browser:
        yield browser


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the sample files."""
    root: Path = tmp_path_factory.mktemp("demo")
    write_demo(root)
    return root


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves a directory until the end of the test: `serve(root, token="x")` returns the URL."""
    with ExitStack() as stack:

        def start(root: Path, root_path: str = "", **settings: Any) -> str:
            app = H5App(root, H5Settings(**settings))
            return stack.enter_context(servers.serving(app, "uvicorn-httptools", root_path))

        yield start


Tabs = Callable[..., Any]


@pytest.fixture
def tabs(chromium: Any, serve: Callable[..., str]) -> Iterator[Tabs]:
    """Makes tabs of browsers that know nothing of each other: `tabs(dark=True)` returns a `Tab`.

    What goes wrong in one, by the console or by an exception, fails the test. They are closed
    before the servers that they listen to.
    """
    with ExitStack() as stack:
        made: list[Tab] = []

        @contextmanager
        def context(**options: Any) -> Iterator[Any]:
            context = chromium.new_context(**options)
            try:
                yield context
            finally:
                context.close()

        def make(*, size: dict[str, int] = DESKTOP, dark: bool = False, **options: Any) -> Tab:
            options = {"viewport": size, "color_scheme": "dark" if dark else "light", **options}
            tab = Tab(stack.enter_context(context(**options)).new_page())
            made.append(tab)
            return tab

        yield make
        for tab in made:
            tab.check()


@pytest.fixture
def tab(tabs: Tabs) -> Tab:
    """A tab of a desktop's size."""
    made: Tab = tabs()
    return made


@pytest.fixture
def url(serve: Callable[..., str], demo: Path) -> str:
    """The URL of a service over the sample files, without a slash at its end."""
    return serve(demo)
