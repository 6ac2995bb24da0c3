"""The page about clusters: its numbers are those of the code, its command is one."""

import shlex

from asgihive.service.cluster import CONNECT_SECONDS
from asgihive.service.cluster_tasks import MAX_TASK_FILES, TASK_BYTES
from asgihive.settings import H5Settings, describe_settings, parse_size
from tests.docs.page import Page

PAGE = Page("docs/clusters.md", ("sh",))


def test_the_numbers() -> None:
    settings = describe_settings(H5Settings)
    assert settings["compute_over_bytes"].default == parse_size("256MiB")
    assert "`compute_over_bytes` (256MiB)" in PAGE.text
    assert f"`compute_retry_seconds` ({settings['compute_retry_seconds'].default:g})" in PAGE.text
    assert f"within {CONNECT_SECONDS:g} s" in PAGE.text
    assert f"in tasks of {TASK_BYTES >> 20} MiB" in PAGE.text
    assert f"more than {MAX_TASK_FILES} source files" in PAGE.text


def test_the_address_is_accepted() -> None:
    [command] = [each for each in PAGE.text.splitlines() if each.startswith("asgihive serve")]
    [*_, option, address] = shlex.split(command)
    assert option == f"--{describe_settings(H5Settings)['compute'].option}"
    assert describe_settings(H5Settings)["compute"].read(address) == address
