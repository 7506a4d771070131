"""`seqrec serve`: answer over HTTP until SIGTERM or Ctrl-C, then finish the open requests."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import signal
import socket
import ssl
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from index.catalogue.open import CATALOGUE_FILE, open_catalogue
from index.keys.open import open_keys
from seqrec.errors import InputError, NotReady
from seqrec.runtime.malloc import limit_arenas
from seqrec.runtime.threads import choose, use
from service import logs
from service.settings import Settings, is_loopback, load_settings
from service.workers import quiet_libraries, run_workers, worker_count

log = logging.getLogger(__name__)

_BACKLOG = 2048
_GRACE_SECONDS = 5
"""How much longer than the longest deadline open requests may take after SIGTERM."""


def serve(argv: Sequence[str]) -> None:
    """Raises InputError for a bad setting or address, NotReady where no snapshot is published."""
    lines = [
        f"  SEQREC_{name.upper():<17} {field.description} (default {field.get_default()})"
        for name, field in Settings.model_fields.items()
    ]
    argparse.ArgumentParser(
        prog="seqrec serve",
        description="Answer over HTTP. Environment variables configure it:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    settings = load_settings()
    logs.set_up(settings)
    quiet_libraries()
    _check_certificate(settings)
    listeners = [_listen(settings, settings.port)]
    try:
        if settings.private_port is not None:
            listeners.append(_listen(settings, settings.private_port))
        count = worker_count(settings)
        threads = choose(settings.threads, count)
        use(threads, export_env=True)
        log.info("computing with %s%s", threads, " each" if count > 1 else "")
        _require_publication(settings)
        _require_keys(settings)
        _run(settings, listeners, count)
    finally:
        for listener in listeners:
            listener.close()


def _listen(settings: Settings, port: int) -> socket.socket:
    """A bound, listening socket, before anything is loaded. Raises InputError if the address is in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InputError(f"cannot listen on {settings.host!r}: {error.strerror}", "SEQREC_HOST") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{port}"
        if error.errno == errno.EADDRINUSE:
            message = f"{where} is in use by another program; set SEQREC_PORT to a free port"
        elif error.errno == errno.EACCES:
            message = f"{where} may not be used by this user; set SEQREC_PORT to a port above 1023"
        else:
            message = f"cannot listen on {where}: {error.strerror}"
        raise InputError(message) from None
    return listener


def _require_publication(settings: Settings) -> None:
    advice = "run `seqrec demo`, or `seqrec index build --publish`, or set SEQREC_HOME to where that was done"
    location = settings.redis_url or settings.home
    if location == settings.home and not (settings.home / CATALOGUE_FILE).is_file():
        raise NotReady(f"there is no catalogue in {settings.home.absolute()}; {advice}")
    with closing(open_catalogue(location, accept_weaker=settings.accept_weaker)) as catalogue:
        if not catalogue.publications():
            raise NotReady(f"no snapshot is published in {settings.home.absolute()}; {advice}")


def _require_keys(settings: Settings) -> None:
    """Raises InputError where everybody on the network could do everything."""
    if settings.anonymous:
        return
    with closing(open_keys(settings.redis_url or settings.home, settings.accept_weaker)) as store:
        if store.all():
            return
    where = "" if is_loopback(settings.host) else f" {settings.host!r} can be reached from other machines."
    raise InputError(
        f"there are no API keys.{where} Create one with `seqrec keys create NAME --scope admin`, or listen on "
        "127.0.0.1, or serve everybody with SEQREC_ALLOW_ANONYMOUS=true",
        "SEQREC_ALLOW_ANONYMOUS" if is_loopback(settings.host) else "SEQREC_HOST",
    )


def _check_certificate(settings: Settings) -> None:
    """Raises InputError for files that cannot be used, before a worker would fail with them."""
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, lambda: "")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"{settings.tls_cert} and {settings.tls_key} cannot be used ({reason}); a PEM certificate chain and its "
            "private key without a password are needed",
            "SEQREC_TLS_CERT",
        ) from None


def _run(settings: Settings, listeners: Sequence[socket.socket], count: int) -> None:
    options = {
        "lifespan": "on",
        "http": "service.http.protocol:LimitedHttpProtocol",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": math.ceil(max(settings.deadline, settings.write_deadline)) + _GRACE_SECONDS,
        "server_header": False,
        "ssl_certfile": settings.tls_cert,
        "ssl_keyfile": settings.tls_key,
    }
    if count > 1:
        _log_listening(settings, listeners, f" with {count} workers")
        run_workers(settings, listeners, count, options)
    else:
        _run_one(settings, listeners, options)
    log.info("stopped")


def _run_one(settings: Settings, listeners: Sequence[socket.socket], options: dict[str, Any]) -> None:
    import uvicorn

    from service.app import create_app

    # uvicorn raises the signal again once it has stopped: a requested stop must not look like a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: log.info("SIGHUP restarts workers; this service has a single process"))
    limit_arenas()
    server = uvicorn.Server(uvicorn.Config(create_app(settings), **options))
    _log_listening(settings, listeners)
    server.run(sockets=list(listeners))
    if not server.started:
        raise NotReady("the service could not start; its log has the reason")


def _log_listening(settings: Settings, listeners: Sequence[socket.socket], how: str = "") -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    for listener, what in zip(listeners, (how, " for metrics, readiness and reindexes"), strict=False):
        host, port = listener.getsockname()[:2]
        log.info("listening on %s://%s:%d%s", scheme, f"[{host}]" if ":" in host else host, port, what)
