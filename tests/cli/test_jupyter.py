"""What asgihive tells jupyter-server-proxy, by the entry point that this looks for."""

from importlib.metadata import entry_points


def test_the_entry_point_describes_a_server() -> None:
    (found,) = (
        each
        for each in entry_points(group="jupyter_serverproxy_servers")
        if each.name == "asgihive"
    )
    described = found.load()()
    assert described["unix_socket"] is True  # which nobody else can reach
    # Where its URL begins is the name of the entry point.
    assert described["launcher_entry"]["path_info"] == f"{found.name}/view/"
