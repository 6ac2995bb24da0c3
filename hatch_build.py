"""Builds the page in the browser into the wheel and the source distribution, where npm is there.

A page that is built already is taken as it is: so pip needs no npm for a source distribution, which
has it. Without npm, in an editable build, and with `ASGIHIVE_NO_VIEWER` in the environment nothing
is built, and `/view/` says how to get the page. A failure of npm is no failure of the build.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface):  # type: ignore[misc,type-arg]  # hatchling is of the build alone
    """Builds the page before the files of a distribution are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # given
        """Build the page, unless it is there or must not be built.

        Args:
            version: `editable` or `standard`.
            build_data: of hatchling; `artifacts` in pyproject.toml names what is built.
        """
        building = _load_building(Path(self.root))
        source = building.PageSource.of_checkout(Path(self.root))
        if (
            source.is_built()
            or not source.is_there()
            or version == "editable"
            or os.environ.get("ASGIHIVE_NO_VIEWER")
        ):
            return
        try:
            npm = building.find_npm(source)
            building.build_page(source, npm, lambda text, _: self.app.display_debug(text))
        except building.BuildFailed as failed:
            self.app.display_warning(f"Without the page in the browser: {failed}")


def _load_building(root: Path) -> Any:
    """Return the module that builds; the package cannot be imported before it is installed."""
    path = root / "asgihive" / "viewer" / "building.py"
    spec = importlib.util.spec_from_file_location("asgihive_building", path)
    if spec is None or spec.loader is None:
        message = f"{path} cannot be loaded"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
