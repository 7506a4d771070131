"""`seqrec serve`: serves over HTTP until SIGTERM or Ctrl-C, then finishes the open requests."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from index.catalogue.open import CATALOGUE_FILE, open_catalogue
from index.keys.open import open_keys
from seqrec.errors import InputError, NotReady
from seqrec.runtime.arguments import Parser
from seqrec.runtime.listen import listen
from seqrec.runtime.malloc import limit_arenas
from seqrec.runtime.threads import choose, use
from service import logs
from service.settings import Settings, is_loopback, load_settings
from service.starting import answered_meanwhile
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
    parser = Parser(
        prog="seqrec serve",
        description="Serve recommendations over HTTP. Environment variables configure it:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", metavar="ADDRESS", help="SEQREC_HOST for this run")
    parser.add_argument("--port", type=int, metavar="N", help="SEQREC_PORT for this run; 0: any free one")
    arguments = parser.parse_args(argv)
    for name in ("host", "port"):
        if getattr(arguments, name) is not None:
            os.environ[f"SEQREC_{name.upper()}"] = str(getattr(arguments, name))  # workers read it too
    settings = load_settings()
    logs.set_up(settings)
    quiet_libraries()
    _check_certificate(settings)
    listeners = [listen(settings.host, settings.port, _BACKLOG)]
    try:
        if settings.private_port is not None:
            listeners.append(listen(settings.host, settings.private_port, _BACKLOG))
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


def _require_publication(settings: Settings) -> None:
    advice = "run `seqrec up`, or `seqrec index build --publish`, or set SEQREC_HOME to where that was done"
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
    # uvicorn raises the signal again once it has stopped: a requested stop must not look like a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: log.info("SIGHUP restarts workers; this service has a single process"))
    limit_arenas()
    _log_listening(settings, listeners)
    accepting = threading.Event()
    # What answers meanwhile speaks plain HTTP only.
    with answered_meanwhile(listeners if settings.tls_cert is None else (), accepting.is_set):
        import uvicorn  # seconds

        from service.app import create_app

        app = create_app(settings, accepting=accepting.set, own_process=True)
        server = uvicorn.Server(uvicorn.Config(app, **options))
        server.run(sockets=list(listeners))
    if not server.started:
        raise NotReady("the service could not start; its log has the reason")


def _log_listening(settings: Settings, listeners: Sequence[socket.socket], how: str = "") -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    for listener, what in zip(listeners, (how, " for metrics, readiness and reindexes"), strict=False):
        host, port = listener.getsockname()[:2]
        log.info("listening on %s://%s:%d%s", scheme, f"[{host}]" if ":" in host else host, port, what)
