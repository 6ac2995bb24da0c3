"""A hook of MkDocs: pages that lie elsewhere in the repository, and links between all of them.

The pages are written for who reads them in the repository, in GitHub's dialect, and with links that
are relative to the file. Here they get the names that the site has for them.
"""

import importlib
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.blockprocessors import build_block_parser
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]

# Pages that do not lie in docs/, by their path in the repository, and where the site has them.
_PAGES = {
    "README.md": "index.md",
    **{
        each: each
        for each in (
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
            "benchmarks/README.md",
            "benchmarks/RESULTS.md",
            "examples/logbook/README.md",
            "examples/house_price_service/README.md",
        )
    },
}
_LISTED = "examples/deployment"
"""A folder whose files the site lists."""

_FENCE = re.compile(r"^ *(```|~~~)")
_LIST_ITEM = re.compile(r"^ *([-*]|\d+\.) ")
# The target of a link or picture: [text](target), without a title.
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#|/")

_REFERENCE = "reference.md"

_SECTION_OF_NEW_PAGES = "How to"
"""In which a page of docs/ is listed that `nav` of mkdocs.yml does not name."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and the files that pages link to."""
    for source, name in _PAGES.items():
        files.append(File.generated(config, name, content=(_ROOT / source).read_text("utf-8")))
    files.append(File.generated(config, _REFERENCE, content=_write_reference()))
    listed = [
        f"## {path.name}\n\n```\n{path.read_text('utf-8').rstrip()}\n```\n"
        for path in sorted((_ROOT / _LISTED).iterdir())
        if path.is_file()  # who runs an example there leaves a folder of bytecode
    ]
    text = "\n".join([f"# Deployment\n\nFiles in `{_LISTED}`:\n", *listed])
    files.append(File.generated(config, f"{_LISTED}/index.md", content=text))
    for name in _find_linked_files(files):
        files.append(File(name, str(_ROOT), config.site_dir, use_directory_urls=False))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List pages that have no place yet, and let lists be indented by two, as on GitHub."""
    sections = {title: pages for each in config.nav or () for title, pages in each.items()}
    named = str(config.nav)
    sections[_SECTION_OF_NEW_PAGES] += sorted(
        each.name for each in (_ROOT / "docs").glob("*.md") if f"'{each.name}'" not in named
    )
    config.markdown_extensions.insert(0, _Narrow())  # type: ignore[arg-type]  # Markdown takes both
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page in the dialect of Python-Markdown, with links that hold on the site."""
    del config, files
    own = page.file.src_uri
    source = next((path for path, name in _PAGES.items() if name == own), f"docs/{own}")
    lines, is_code, before = [], False, ""
    for line in markdown.splitlines():
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            # A list may follow a paragraph at once.
            begins = _LIST_ITEM.match(line) and before.strip()
            if begins and not _LIST_ITEM.match(before) and not before.startswith(" "):
                lines.append("")
            lines.append(_LINK.sub(_make_link_translator(source, own), line))
            before = line
            continue
        lines.append(line)
        before = line
    return "\n".join(lines)


class _Narrow(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  # of Python-Markdown
        md.tab_length = 2
        # Its parts have read the length already; those of other extensions come later.
        md.parser = build_block_parser(md)


def _make_link_translator(source: str, own: str) -> Callable[[re.Match[str]], str]:
    def translate(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        if _ELSEWHERE.match(target):
            return link[0]
        path, mark, anchor = target.partition("#")
        name = _find_name(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        relative = posixpath.relpath(name, posixpath.dirname(own) or ".")
        return f"{before}{relative}{mark}{anchor}{after}"

    return translate


def _find_name(path: str) -> str:
    """Return where the site has a file or folder of the repository."""
    if path in _PAGES:
        return _PAGES[path]
    if path == _LISTED:
        return f"{path}/index.md"
    if f"{path}/README.md" in _PAGES:
        return f"{path}/README.md"
    return path.removeprefix("docs/")


def _find_linked_files(files: Files) -> set[str]:
    """Return the files outside docs/ that pages link to, and that are no pages."""
    sources = [*_PAGES, *(f"docs/{each.src_uri}" for each in files.documentation_pages())]
    found = set()
    for source in sources:
        if not (_ROOT / source).is_file():
            continue  # it is made here
        for _, target, _ in _LINK.findall((_ROOT / source).read_text("utf-8")):
            path = posixpath.normpath(
                posixpath.join(posixpath.dirname(source), target.partition("#")[0])
            )
            is_own = path.startswith("docs/") or path in _PAGES
            if not _ELSEWHERE.match(target) and not is_own and (_ROOT / path).is_file():
                found.add(path)
    return found


def _write_reference() -> str:
    """Return a page of the public names with their docstrings."""
    package: Any = importlib.import_module("asgihive")
    lines = ["# Python names", "", "What `from asgihive import …` brings.", ""]
    for name in sorted(package.__all__, key=str.lower):
        module = getattr(package, name).__module__
        if module.startswith("asgihive."):
            lines += [f"::: {module}.{name}", ""]
        else:
            lines += [f"## {name}", "", f"That of `{module}`.", ""]
    return "\n".join(lines)
