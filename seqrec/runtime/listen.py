"""Listening on the address of the service (SEQREC_HOST, SEQREC_PORT)."""

from __future__ import annotations

import errno
import socket

from seqrec.errors import InputError

_PORT, _HOST = "SEQREC_PORT", "SEQREC_HOST"


def listen(host: str, port: int, backlog: int = 1) -> socket.socket:
    """A bound, listening socket. Raises InputError, which names the variable to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InputError(f"{host!r} is not an address to listen on: {error.strerror}", _HOST) from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _described(error, host, port) from None
    return listener


def _described(error: OSError, host: str, port: int) -> InputError:
    if error.errno == errno.EADDRINUSE:
        advice = f"stop it, or choose another port, e.g. {_PORT}={port % 65535 + 1}"
        return InputError(f"port {port} of {host} is in use by another program; {advice}", _PORT)
    if error.errno == errno.EACCES:
        return InputError(f"port {port} needs privileges; choose a port above 1023", _PORT)
    return InputError(f"{host!r} is not an address of this machine: {error.strerror}", _HOST)
