"""The code of a page of the documentation, as files."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks() -> dict[str, str]:
    """By the name in its first line, each block of code of the page."""
    found: dict[str, str] = {}
    for language, text in _FENCE.findall(PAGE.read_text()):
        first, _, code = text.partition("\n")
        assert language == "python", f"a block of {language!r} is tried by nobody: {text}"
        assert re.fullmatch(r"# \S+\.py", first), f"a block without a name: {text}"
        name = first.removeprefix("# ")
        assert name not in found, f"{name} is there twice"
        found[name] = code
    return found


def write_files(folder: Path) -> None:
    """Write all of them below `folder`."""
    for name, code in code_blocks().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
