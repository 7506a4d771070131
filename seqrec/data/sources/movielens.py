"""MovieLens: 100K (u.data, u.item), 1M and 10M (ratings.dat, movies.dat), 20M and later (ratings.csv, movies.csv).

Formats: the README of each at https://files.grouplens.org/datasets/movielens/. Items get `title`, `year`, `genres`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqrec.data.csv_records import strict_fields
from seqrec.data.items import Item
from seqrec.data.jsonl import OnError
from seqrec.data.sources.base import Event, RawEvent, RawItem, event_lines, item_lines, present
from seqrec.errors import FileFormatError, InputError

GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
"""The flags at the end of a line of u.item, in the order of u.genre."""

_YEAR = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*")


@dataclass(frozen=True)
class Layout:
    """`split_...` return the fields of a line; `item` returns id, title and genres from the fields of a movie."""

    ratings: str
    movies: str
    split_ratings: Callable[[str], Sequence[str]]
    split_movies: Callable[[str], Sequence[str]]
    item: Callable[[Sequence[str]], tuple[str, str, list[str]]]
    header: bool = False


class MovieLensSource:
    """An unpacked folder. Its file names determine the layout; raises FileFormatError if it has none of them."""

    mixes_units = False

    def __init__(self, folder: Path) -> None:
        for layout in LAYOUTS:
            ratings, movies = present(folder, layout.ratings), present(folder, layout.movies)
            if ratings and movies:
                self._layout, self._ratings, self._movies = layout, ratings, movies
                return
        wanted = "; ".join(f"{layout.ratings} and {layout.movies}" for layout in LAYOUTS)
        raise FileFormatError(folder, None, f"not an unpacked MovieLens data set, which has {wanted}")

    def items(self, on_error: OnError) -> Iterator[Item]:
        layout = self._layout

        def parse(line: str) -> RawItem:
            item_id, title, genres = layout.item(layout.split_movies(_decoded(line)))
            attributes: dict[str, object] = {"title": title}
            dated = _YEAR.fullmatch(title)
            if dated:
                attributes = {"title": dated["title"], "year": int(dated["year"])}
            if genres:
                attributes["genres"] = genres
            return item_id, attributes

        yield from item_lines(self._movies, parse, on_error, layout.header, any_encoding=True)

    def events(self, on_error: OnError) -> Iterator[Event]:
        layout = self._layout

        def parse(line: str) -> RawEvent:
            user_id, item_id, rating, timestamp = _exactly(4, layout.split_ratings(line))
            return user_id, item_id, timestamp, rating

        yield from event_lines(self._ratings, parse, on_error, layout.header)


def _decoded(line: str) -> str:
    """100K and 1M are Latin-1, the others UTF-8: a line that is not UTF-8 is Latin-1."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return line.encode(errors="surrogateescape").decode("latin-1")
    return line


def _exactly(count: int, fields: Sequence[str]) -> Sequence[str]:
    if len(fields) != count:
        raise InputError(f"{len(fields)} fields, not {count}")
    return fields


def _flagged(fields: Sequence[str]) -> tuple[str, str, list[str]]:
    item_id, title, _released, _video, _url, *flags = _exactly(5 + len(GENRES_100K), fields)
    return item_id, title, [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]


def _piped(fields: Sequence[str]) -> tuple[str, str, list[str]]:
    item_id, title, genres = _exactly(3, fields)
    return item_id, title, [] if genres in ("", "(no genres listed)") else genres.split("|")


LAYOUTS = (
    Layout("u.data", "u.item", lambda line: line.split("\t"), lambda line: line.split("|"), _flagged),
    Layout("ratings.dat", "movies.dat", lambda line: line.split("::"), lambda line: line.split("::"), _piped),
    Layout("ratings.csv", "movies.csv", strict_fields, strict_fields, _piped, header=True),
)
