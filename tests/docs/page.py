"""The pages of the documentation: their code as files, their commands with what is printed."""

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A line after `$`, and the lines that follow it."""

    line: str
    output: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or the section of one below a heading of the second level.

    Args:
        languages: of the blocks that somebody tries; another one is a mistake.
    """

    name: str
    languages: tuple[str, ...]
    section: str = ""

    @property
    def text(self) -> str:
        """Of the page, or of the section."""
        text = (_ROOT / self.name).read_text()
        if not self.section:
            return text
        _, heading, below = text.partition(f"\n## {self.section}\n")
        assert heading, f"{self.name} has no section {self.section}"
        return below.partition("\n## ")[0]

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks of a language."""
        found = _FENCE.findall(self.text)
        unknown = [each for each in found if each[0] not in self.languages]
        assert not unknown, f"blocks that no test tries: {unknown}"
        return [text for each, text in found if each == language]

    def code(self) -> dict[str, str]:
        """By the name in its first line, each block of Python."""
        found: dict[str, str] = {}
        for text in self.blocks("python"):
            first, _, code = text.partition("\n")
            assert re.fullmatch(r"# \S+\.py", first), f"a block without a name: {text}"
            name = first.removeprefix("# ")
            assert name not in found, f"{name} is there twice"
            found[name] = code
        return found

    def write_files(self, folder: Path) -> None:
        """Write all code below `folder`, each file with the line that names it."""
        for name, code in self.code().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"# {name}\n{code}")

    def sessions(self) -> list[list[Command]]:
        """The blocks of the console, each as its commands."""
        return [
            [
                Command(*each.split("\n", 1))
                for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
            ]
            for block in self.blocks("console")
        ]

    def table(self, header: str) -> list[list[str]]:
        """The cells of the rows below a header, without backquotes."""
        _, found, below = self.text.partition(f"{header}\n")
        assert found, f"{self.name} has no table {header}"
        rows = below.partition("\n\n")[0].splitlines()[1:]
        return [[cell.strip().replace("`", "") for cell in row[1:-1].split("|")] for row in rows]


MIGRATION = Page("docs/migration.md", ("python",))
HIVE = Page("docs/hive.md", ("python", "console", "toml", "text"))
README = Page("README.md", ("python", "console", "text"), "Put a service together")
