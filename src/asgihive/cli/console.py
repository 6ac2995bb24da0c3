"""How every command of `asgihive` reads its arguments, tells and complains."""

import argparse
from typing import Any, NoReturn

# What all parsers are made with.
STYLE: dict[str, Any] = {
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}


class Parser(argparse.ArgumentParser):
    """Complains in one line; whoever wants the usage is told how to see it."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line} (see {self.prog} --help)\n")


def tell(text: str) -> None:
    """Say it on stdout, at once."""
    print(text, flush=True)  # noqa: T201  # the command's output, for people and pipes
