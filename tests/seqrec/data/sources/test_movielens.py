"""MovieLens in the layouts of its releases."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec.errors import FileFormatError

Run = Callable[..., Any]
TOY_STORY = {"title": "Toy Story", "year": 1995, "genres": ("Animation", "Children's", "Comedy")}
MISERABLES = {"title": "Misérables, Les", "year": 1995, "genres": ("Drama", "Musical")}
URL = "http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"


def write_100k(folder: Path) -> None:
    (folder / "u.data").write_bytes(b"196\t242\t3\t881250949\n186\t1\t5\t891717742\n196\t1\t4\t881250949\n")
    (folder / "u.item").write_bytes(
        f"1|Toy Story (1995)|01-Jan-1995||{URL}|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        f"242|Misérables, Les (1995)|01-Jan-1995||{URL}|0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0\n"
        "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n\n".encode("latin-1")
    )


def write_1m(folder: Path, encoding: str) -> None:
    (folder / "ratings.dat").write_bytes(b"196::242::3::881250949\n186::1::5::891717742\n196::1::4.5::881250949\n")
    (folder / "movies.dat").write_bytes(
        "1::Toy Story (1995)::Animation|Children's|Comedy\n242::Misérables, Les (1995)::Drama|Musical\n"
        "267::unknown::(no genres listed)\n".encode(encoding)
    )


def write_25m(folder: Path, packed: bool) -> None:
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\r\n196,242,3.0,881250949\r\n186,1,5.0,891717742\r\n"
        "196,1,4.0,881250949\r\n",
        "movies.csv": "movieId,title,genres\r\n1,Toy Story (1995),Animation|Children's|Comedy\r\n"
        '242,"Misérables, Les (1995)",Drama|Musical\r\n267,unknown,(no genres listed)\r\n',
    }
    for name, text in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_bytes(text.encode())


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "100k": write_100k,
    "1m": lambda folder: write_1m(folder, "latin-1"),
    "10m": lambda folder: write_1m(folder, "utf-8"),
    "25m": lambda folder: write_25m(folder, packed=False),
    "25m packed": lambda folder: write_25m(folder, packed=True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(layout: str, tmp_path: Path, run: Run) -> None:
    LAYOUTS[layout](tmp_path)
    done = run("movielens", tmp_path)
    assert done.items == {"1": TOY_STORY, "242": MISERABLES}
    assert done.events == [("196", "242", 881250949), ("186", "1", 891717742), ("196", "1", 881250949)]
    unknown = {"title": "unknown", "genres": ("unknown",)} if layout == "100k" else {"title": "unknown"}
    assert run("movielens", tmp_path, "--items", "all").items["267"] == unknown


def test_ratings_below_the_least_go(tmp_path: Path, run: Run) -> None:
    write_1m(tmp_path, "latin-1")
    done = run("movielens", tmp_path, "--min-rating", "4.5")
    assert done.events == [("186", "1", 891717742), ("196", "1", 881250949)]
    assert done.about["counts"]["left_out"]["rating"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "broken", "reason"),
    [
        ("ratings.dat", "1::2::3", r"ratings\.dat, line 4: 3 fields, not 4"),
        ("ratings.dat", "1::2::3::noon", r"ratings\.dat, line 4: timestamp: 'noon' is not a number"),
        ("ratings.dat", "1::2::good::1", r"ratings\.dat, line 4: rating: 'good' is not a number"),
        ("ratings.dat", "1::::3::1", r"ratings\.dat, line 4: item_id: .* 1 to 256 bytes"),
        ("movies.dat", "7::Seven (1995)", r"movies\.dat, line 4: 2 fields, not 3"),
    ],
)
def test_a_broken_line_is_named_or_skipped(file: str, broken: str, reason: str, tmp_path: Path, run: Run) -> None:
    write_1m(tmp_path, "latin-1")
    with (tmp_path / file).open("a", encoding="latin-1") as out:
        out.write(broken + "\n")
    with pytest.raises(FileFormatError, match=reason):
        run("movielens", tmp_path)
    assert not (tmp_path / "imported").exists()
    assert len(run("movielens", tmp_path, "--on-error", "skip").events) == 3


@pytest.mark.parametrize("closed", [False, True])
def test_a_stray_quote_hides_no_rows(closed: bool, tmp_path: Path, run: Run) -> None:
    write_25m(tmp_path, packed=False)
    rows = ['9,"1,3.0,881250949', *(f"{n},1,3.0,881250949" for n in range(900)), '9,1",3.0,881250949' if closed else ""]
    with (tmp_path / "ratings.csv").open("a") as file:
        file.write("\r\n".join(rows) + "\r\n")
    with (tmp_path / "movies.csv").open("a") as file:
        file.write('4,"Four (1994),Drama\r\n5,Five (1995),Drama\r\n6,Six (1996)",Drama\r\n')
    reason = r"movies\.csv, line 5: not CSV: a quote that opens a field is not closed in this line"
    with pytest.raises(FileFormatError, match=reason):
        run("movielens", tmp_path)
    done = run("movielens", tmp_path, "--on-error", "skip", "--items", "all")
    assert len(done.events) == 903 + closed
    assert done.items["5"] == {"title": "Five", "year": 1995, "genres": ("Drama",)}


def test_a_folder_of_something_else_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "ratings.csv").touch()
    with pytest.raises(FileFormatError, match=r"u\.data and u\.item; .*; ratings\.csv and movies\.csv"):
        run("movielens", tmp_path)
