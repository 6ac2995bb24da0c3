"""What a server logs, and where: its life and errors on stderr, requests on stdout."""

import logging
from typing import Any

_JSON = "asgihive.service.access_log.JSONFormatter"


def log_config(level: str, access_log: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in every worker process.

    Args:
        level: the least one on stderr.
        access_log: `text` or `json` for a line a request, in the latter case with all others
            in JSON too; `off` for none.
    """
    is_json = access_log == "json"

    def handler(stream: str, formatter: str) -> dict[str, Any]:
        return {
            "class": "logging.StreamHandler",
            "stream": f"ext://sys.{stream}",
            "formatter": "json" if is_json else formatter,
        }

    def logger(handler: str, level: int | str) -> dict[str, Any]:
        return {"handlers": [handler], "level": level, "propagate": False}

    none = logging.CRITICAL + 1
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"format": "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"},
            "line": {"format": "%(asctime)s %(message)s"},
            "json": {"()": _JSON},
        },
        "handlers": {"errors": handler("stderr", "text"), "access": handler("stdout", "line")},
        "root": {"handlers": ["errors"], "level": "WARNING"},
        "loggers": {
            "uvicorn": logger("errors", level.upper()),
            "asgihive": logger("errors", level.upper()),
            "asgihive.access": logger("access", none if access_log == "off" else "INFO"),
        },
    }
