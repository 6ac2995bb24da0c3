"""Sockets of a server, the mistakes in an address or a certificate, and the URLs to open."""

import contextlib
import errno
import ipaddress
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from asgihive.cli.options import ServerOptions

_BACKLOG = 2048

# Of documentation (RFC 5737, RFC 3849): nothing is sent there, only a route is looked up.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket: from here on connections wait to be accepted.

    Raises:
        OSError: the address cannot be resolved or bound.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # a name that IDNA cannot encode
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from None
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=_BACKLOG)


@contextmanager
def listening_at_path(path: str) -> Iterator[socket.socket]:
    """Listen at a Unix socket at `path`, which is removed at the end.

    As at a port, every user may connect whom the directories let through. A socket that a
    server has left there is replaced.

    Raises:
        OSError: it cannot be made; `EADDRINUSE` when another server listens there, `EEXIST`
            when there is something else.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        _remove_dead(path)
        listener.bind(path)
        made = os.lstat(path)
        try:
            os.chmod(path, 0o666)  # noqa: S103  # as anyone may connect to a port
            listener.listen(_BACKLOG)
            yield listener
        finally:
            # Another program may have put a file there meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(made, os.lstat(path)):
                    os.unlink(path)


def _remove_dead(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def describe_listen_problem(options: ServerOptions, error: OSError) -> str:
    """Return why a server cannot listen where `options` say, and what to do."""
    # A path that is too long has no number.
    reason = os.strerror(error.errno) if error.errno else str(error)
    if options.uds is not None:
        path = options.uds
        problems = {
            errno.EADDRINUSE: f"another server listens at {path}: choose another path with --uds, "
            "or stop it",
            errno.EEXIST: f"{path} is there already, and no socket: choose another path with --uds",
        }
        return problems.get(error.errno or 0, f"cannot listen at {path}: {reason}")
    host, port = options.host, options.port
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not an address or a known name"
    problems = {
        errno.EADDRINUSE: f"port {port} of {host} is taken: choose another with --port, or stop "
        "its owner",
        errno.EACCES: f"port {port} needs privileges: choose one above 1023 with --port",
        errno.EADDRNOTAVAIL: f"{host} is not an address of this machine: choose another with "
        "--host",
    }
    return problems.get(error.errno or 0, f"cannot listen at {host}, port {port}: {reason}")


def find_certificate_problem(options: ServerOptions) -> str | None:
    """Return why HTTPS cannot be served with the files that `options` name, None if it can."""
    certificate, key = options.ssl_certfile, options.ssl_keyfile
    if certificate is None:
        return None if key is None else "--ssl-keyfile needs --ssl-certfile"
    for path in (certificate, key or certificate):
        if not os.access(path, os.R_OK):
            return f"{path!r} cannot be read: the certificate and key are PEM files"
    try:
        # A password is never asked for: there is no one to type it when a service starts.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        files = certificate if key is None else f"{certificate} and {key}"
        return f"{files}: no certificate chain and its unencrypted key in PEM ({reason})"
    return None


def is_loopback(listener: socket.socket) -> bool:
    """Tell whether the socket is at a loopback address: only this machine can connect."""
    if listener.family not in _LOOPBACK:
        return False
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def list_urls(options: ServerOptions, listener: socket.socket) -> list[str]:
    """Return the URLs to open, without a slash at their end: for others, and for this machine.

    There is one where both are the same. A server that listens at every address is shown by
    the one that this machine has towards others, where it has any.
    """
    scheme = "http" if options.ssl_certfile is None else "https"
    if options.uds is not None:
        return [f"{scheme}://localhost{options.prefix}"]
    address, port = listener.getsockname()[:2]
    hosts = [options.host]
    if ipaddress.ip_address(address.partition("%")[0]).is_unspecified:
        own = _find_outer_address(listener.family)
        hosts = [each for each in (own, _LOOPBACK[listener.family]) if each]
    return [
        f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{options.prefix}"
        for host in hosts
    ]


def _find_outer_address(family: int) -> str | None:
    """Return the address of this machine that others see, None where it has no route to them."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ELSEWHERE[socket.AddressFamily(family)], 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if ipaddress.ip_address(address).is_loopback else address
