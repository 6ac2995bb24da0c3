"""`asgihive completion SHELL`: a script by which a shell completes commands, options and files."""

import argparse
from collections.abc import Mapping

from asgihive.cli.console import Parser, tell

SHELLS = ("bash", "zsh", "fish")

_HELP = """\
The script goes where the shell looks for it, or into its configuration:

  bash  asgihive completion bash > ~/.local/share/bash-completion/completions/asgihive
  zsh   asgihive completion zsh > "${fpath[1]}/_asgihive", or into another directory of fpath
  fish  asgihive completion fish > ~/.config/fish/completions/asgihive.fish

It is made of the commands of this version, so make it again after an update. For this shell alone:
eval "$(asgihive completion bash)"
"""


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Let the command take its arguments."""
    parser.description = "Write a script by which a shell completes commands, options and files."
    parser.epilog = _HELP
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish.")
    parser.set_defaults(run=_complete, parser=parser)


def _complete(options: argparse.Namespace) -> int:
    tell(make_script(options.shell))
    return 0


def make_script(shell: str) -> str:
    """Return the script for one of `SHELLS`."""
    import shtab  # noqa: PLC0415  # what no other command needs

    from asgihive.cli import COMMANDS, make_whole_parser  # noqa: PLC0415  # which imports this

    # What an argument is, its help says already.
    kinds = {
        "FILE": shtab.FILE,
        "FILE [PATH]": shtab.FILE,
        "PATH": shtab.FILE,
        "DIR": shtab.DIRECTORY,
    }
    parser = make_whole_parser()
    for name, each in _find_commands(parser).items():
        each.description = COMMANDS[name][0]  # in one line, as a shell shows it
        for action in each._actions:  # noqa: SLF001  # shtab reads them likewise
            if action.metavar in kinds:
                action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # for shtab
    return str(shtab.complete(parser, shell)).rstrip("\n")


def _find_commands(parser: Parser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by their names."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return action.choices
    return {}
