"""`seqrec serve`: serves over HTTP until SIGTERM or Ctrl-C, then finishes the open requests."""

from __future__ import annotations

import argparse
import logging
import math
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from index.catalogue.open import CATALOGUE_FILE, open_catalogue
from seqrec.errors import NotReady
from seqrec.runtime.listen import listen
from seqrec.runtime.malloc import limit_arenas
from seqrec.runtime.threads import choose, use
from service.settings import Settings, load_settings
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
    argparse.ArgumentParser(
        prog="seqrec serve",
        description="Serve recommendations over HTTP. Environment variables configure it:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    settings = load_settings()
    logging.getLogger().setLevel(settings.log_level.upper())
    quiet_libraries()
    listener = listen(settings.host, settings.port, _BACKLOG)
    try:
        count = worker_count(settings)
        threads = choose(settings.threads, count)
        use(threads, export_env=True)
        log.info("computing with %s%s", threads, " each" if count > 1 else "")
        _require_publication(settings)
        _run(settings, listener, count)
    finally:
        listener.close()


def _require_publication(settings: Settings) -> None:
    advice = "run `seqrec up`, or `seqrec index build --publish`, or set SEQREC_HOME to where that was done"
    location = settings.redis_url or settings.home
    if location == settings.home and not (settings.home / CATALOGUE_FILE).is_file():
        raise NotReady(f"there is no catalogue in {settings.home.absolute()}; {advice}")
    with closing(open_catalogue(location, accept_weaker=settings.accept_weaker)) as catalogue:
        if not catalogue.publications():
            raise NotReady(f"no snapshot is published in {settings.home.absolute()}; {advice}")


def _run(settings: Settings, listener: socket.socket, count: int) -> None:
    options = {
        "lifespan": "on",
        "http": "service.http.protocol:LimitedHttpProtocol",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_graceful_shutdown": math.ceil(max(settings.deadline, settings.write_deadline)) + _GRACE_SECONDS,
        "server_header": False,
    }
    if count > 1:
        _log_listening(listener, f" with {count} workers")
        run_workers(settings, listener, count, options)
    else:
        _run_one(settings, listener, options)
    log.info("stopped")


def _run_one(settings: Settings, listener: socket.socket, options: dict[str, Any]) -> None:
    # uvicorn raises the signal again once it has stopped: a requested stop must not look like a failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: log.info("SIGHUP restarts workers; this service has a single process"))
    limit_arenas()
    _log_listening(listener)
    accepting = threading.Event()
    with answered_meanwhile(listener, accepting.is_set):
        import uvicorn  # seconds

        from service.app import create_app

        server = uvicorn.Server(uvicorn.Config(create_app(settings, accepting=accepting.set), **options))
        server.run(sockets=[listener])
    if not server.started:
        raise NotReady("the service could not start; its log has the reason")


def _log_listening(listener: socket.socket, how: str = "") -> None:
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d%s", f"[{host}]" if ":" in host else host, port, how)
