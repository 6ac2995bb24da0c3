"""asgihive in JupyterLab: what jupyter-server-proxy starts from the launcher, by an entry point."""

import os
import sys
from typing import Any

from asgihive.viewer.page import DIST

START_SECONDS = 60.0
"""How long the service may take until it listens: imports from a network file system take long."""


def describe_server() -> dict[str, Any]:
    """Return what `jupyter_serverproxy_servers` asks for: a service over the notebook directory.

    It listens at a Unix socket in a folder of the user's own, so that no other user of the machine
    reaches it: whoever asks has passed Jupyter. It starts when it is first asked for.
    """
    icon = os.path.join(DIST, "icon.svg")
    return {
        "command": _make_command,
        "unix_socket": True,
        "timeout": START_SECONDS,
        "launcher_entry": {
            "title": "HDF5 files",
            "path_info": "asgihive/view/",
            "category": "Other",
            "icon_path": icon if os.path.isfile(icon) else "",
        },
    }


def _make_command() -> list[str]:
    """Return the command, once it is needed: only then the Jupyter server knows its directory."""
    from jupyter_server.serverapp import ServerApp  # noqa: PLC0415  # of the process that asks

    # A name with braces would be taken for one of jupyter-server-proxy's own.
    root = ServerApp.instance().root_dir.replace("{", "{{").replace("}", "}}")
    return [sys.executable, "-m", "asgihive", "serve", root, "--uds", "{unix_socket}"]
