"""Commands that are sent together, to a server that refuses them in its own ways."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator

import pytest
import redis

from index.catalogue.redis.connection import exchange


class Refusing(socketserver.ThreadingTCPServer):
    """Answers every command with the same error, but for a greeting."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, error: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.error = error


class Handler(socketserver.StreamRequestHandler):
    server: Refusing

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = [self.rfile.readline() for _ in range(2 * int(header[1:]))][1::2]
            self.wfile.write(b"+OK\r\n" if words[0] == b"CLIENT\r\n" else self.server.error)  # redis-py greets


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[redis.Connection]:
    with Refusing(request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = redis.Connection("127.0.0.1", server.server_address[1], protocol=2)
        yield made
        made.disconnect()
        server.shutdown()


@pytest.mark.parametrize(
    ("connection", "kind"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", redis.BusyLoadingError),
        (b"-NOAUTH Authentication required.\r\n", redis.AuthenticationError),
        (b"-READONLY You can't write against a read only replica.\r\n", redis.ReadOnlyError),
        (b"-ERR whatever\r\n", redis.ResponseError),
    ],
    indirect=["connection"],
)
def test_each_command_gets_the_error(connection: redis.Connection, kind: type[Exception]) -> None:
    """A server that is starting again refuses the first one, and redis-py closes the connection at once."""
    for _ in range(2):
        replies = exchange(connection, [("ZRANGE", "a", 0, -1), ("HGETALL", "b"), ("GET", "c")])
        assert [type(reply) for reply in replies] == [kind] * 3
