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
            parsed = sqlalchemy.make_url(url)
            self.name = parsed.render_as_string(hide_password=True)
            if parsed.get_backend_name() == "sqlite":
                file = base / (parsed.database or "")
                if not file.is_file():
                    raise InputError("no such SQLite file; the URL of a relative path is sqlite:///shop.db", self.name)
                parsed = parsed.set(database=str(file))
            self._engine = sqlalchemy.create_engine(parsed)
            self._query = query or self._only_table()
            with self._connection() as connection:
                self.columns: Sequence[str] = tuple(connection.execute(sqlalchemy.text(self._query)).keys())
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            raise InputError(self._reason(error), getattr(self, "name", "the URL")) from None
        self.notes: dict[str, Any] = {"format": "sql", "query": self._query}

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
        original = getattr(error, "orig", None) or error
        return f"{original}".split("\n", 1)[0]


def _plain(value: Any) -> Any:
    """Decimals as numbers; bytes as text."""
    if hasattr(value, "as_tuple"):
        return float(value)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
