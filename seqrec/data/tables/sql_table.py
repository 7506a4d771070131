"""The rows of a SQL query, by SQLAlchemy URL. Needs SQLAlchemy and the database's driver: pip install 'seqrec[sql]'."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from seqrec.data.tables.base import BATCH_ROWS, Rejects, check_columns, text_or_values
from seqrec.errors import FileFormatError, InputError

_URL = re.compile(r"[a-z][a-z0-9+]*://")

_CONNECT_SECONDS = 20
_READ_SECONDS = 600
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


def is_url(path: str) -> bool:
    return _URL.match(path) is not None


class SqlTable:
    """Rows are fetched in parts, by a server-side cursor where the driver has one. The password is never shown.

    `base`: the folder of an SQLite file's relative path.
    """

    def __init__(self, url: str, query: str | None, base: Path = Path()) -> None:
        try:
            import sqlalchemy
        except ImportError:
            raise InputError("reading a database needs SQLAlchemy: pip install 'seqrec[sql]'", url[:20]) from None
        self._sql = sqlalchemy
        try:
            parsed = self._parsed(url)
            if parsed.get_backend_name() == "sqlite":
                file = base / (parsed.database or "")
                if not file.is_file():
                    raise InputError("no such SQLite file; the URL of a relative path is sqlite:///shop.db", self.name)
                parsed = parsed.set(database=str(file))
            self._engine = sqlalchemy.create_engine(parsed, connect_args=_connect_args(parsed))
            self._query = query or self._only_table()
            with self._connection() as connection:
                self.columns: Sequence[str] = tuple(connection.execute(sqlalchemy.text(self._query)).keys())
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            raise InputError(self._reason(error), self.name) from None
        self.lists: Sequence[str] = ()
        self.notes: dict[str, Any] = {"format": "sql", "query": self._query}

    def _parsed(self, url: str) -> Any:
        scheme = url.partition("://")[0]
        self.name = f"{scheme}://..."  # until it is known where the password is
        try:
            parsed = self._sql.make_url(url)
            self.name = parsed.render_as_string(hide_password=True)
            parsed.get_dialect()
        except self._sql.exc.NoSuchModuleError:
            known = "postgresql://USER:PASSWORD@HOST/DB, mysql+pymysql://..., sqlite:///FILE"
            way_out = (
                "download the file first" if scheme in ("http", "https", "s3", "gs", "ftp") else f"such as {known}"
            )
            raise InputError(
                f"{scheme} is not the URL of a database that SQLAlchemy knows; {way_out}", self.name
            ) from None
        except (ValueError, self._sql.exc.ArgumentError) as error:
            raise InputError(f"not the URL of a database: {error}", self.name) from None
        return parsed

    def batches(self, columns: Sequence[str] | None, rejects: Rejects) -> Iterator[pa.RecordBatch]:
        wanted = self.columns if columns is None else columns
        check_columns(Path(self.name), None, self.columns, wanted)
        places = [list(self.columns).index(name) for name in wanted]
        try:
            with self._connection() as connection:
                result = connection.execution_options(yield_per=BATCH_ROWS).execute(self._sql.text(self._query))
                for rows in result.partitions():
                    values = list(zip(*rows, strict=True))
                    arrays = [text_or_values([_plain(value) for value in values[place]]) for place in places]
                    yield pa.RecordBatch.from_arrays(arrays, list(wanted))
        except self._sql.exc.SQLAlchemyError as error:
            raise InputError(self._reason(error), self.name) from None

    def error(self, row: int, reason: str) -> FileFormatError:
        return FileFormatError(Path(self.name), None, f"row {row + 1} of the query: {reason}")

    def _connection(self) -> Any:
        return self._engine.connect()

    def _only_table(self) -> str:
        names = self._sql.inspect(self._engine).get_table_names()
        if len(names) != 1:
            found = ", ".join(names) or "none"
            raise InputError(
                f"give a query (--items-query, --events-query); the database has the tables {found}", self.name
            )
        return f'SELECT * FROM "{names[0]}"'

    def _reason(self, error: Exception) -> str:
        if isinstance(error, ModuleNotFoundError):
            return f"its driver is not installed: pip install {_PACKAGES.get(error.name or '', error.name)}"
        original = getattr(error, "orig", None) or error
        return f"{original}".split("\n", 1)[0]


def _connect_args(url: Any) -> dict[str, Any]:
    """A server that does not answer must not stop a command for ever. The drivers that know it call it the same."""
    driver = url.get_driver_name()
    waits = {"connect_timeout": _CONNECT_SECONDS}
    if driver == "pymysql":  # waits for the greeting of the server as for rows
        waits["read_timeout"] = _READ_SECONDS
    if driver not in ("psycopg", "psycopg2", "pymysql", "mysqldb", "mysqlconnector"):
        return {}
    return {name: seconds for name, seconds in waits.items() if name not in url.query}


def _plain(value: Any) -> Any:
    """Decimals as numbers; bytes as text."""
    if hasattr(value, "as_tuple"):
        return float(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
