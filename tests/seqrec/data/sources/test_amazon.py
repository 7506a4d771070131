"""Amazon's review dumps in the layouts of 2014, 2018 and 2023."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrec.errors import FileFormatError

Run = Callable[..., Any]

REVIEWS_2014 = """\
{"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. M", "helpful": [2, 3], "reviewText": "He is \
having a wonderful time", "overall": 5.0, "summary": "Hymns", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}
{"reviewerID": "A1", "asin": "B01", "helpful": [0, 0], "overall": 2.0, "unixReviewTime": 1252800001, "reviewTime": "x"}
"""
METADATA_2014 = r"""
{'asin': '0000013714', 'title': "Fifty Hymns &amp; \"Songs\" of J\xe9r\xf4me", 'price': 3.17, 'imUrl': '', \
'related': {'also_bought': ['B00JHONN1S']}, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', \
'categories': [['Sports', 'Other'], ['Sports', 'Dance']]}
{'asin': 'B01', 'categories': [['Books']], 'description': 'Only <b>described</b>.'}
""".replace("\\\n", "").lstrip()

REVIEWS_2018 = """\
{"image": ["https://x/y.jpg"], "overall": 5.0, "vote": "2", "verified": true, "reviewTime": "01 1", "reviewerID": \
"AUI6WTTT0QZYS", "asin": "5120053084", "style": {"Size:": "Large"}, "reviewText": "shirt", "unixReviewTime": 1514764800}
{"overall": 4.0, "verified": false, "reviewerID": "AUI6WTTT0QZYS", "asin": "B02", "unixReviewTime": 1514764700}
"""
METADATA_2018 = [
    {
        "category": ["Clothing", "Shirts &amp; Tees", "</span></span></span>", "Imported"],
        "tech1": "",
        "description": ["Fine &quot;cotton&quot;.", "<p>Soft</p>"],
        "title": "Shirt,\n  blue",
        "brand": "by\n    Acme",
        "feature": ["100% cotton", ""],
        "rank": ">#5 in Clothing",
        "price": "$1,024.50",
        "asin": "5120053084",
    },
    {
        "category": [],
        "title": "var aPageStart = (new Date()).getTime();",
        "brand": "",
        "price": ".a-box{}",
        "asin": "B02",
    },
    {"category": [], "title": "The same id again", "asin": "5120053084"},
]

REVIEWS_2023 = """\
{"rating": 5.0, "title": "Such a lovely scent", "text": "...", "images": [], "asin": "B00Y", "parent_asin": "B03", \
"user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}
"""
METADATA_2023 = [
    {
        "main_category": "All Beauty",
        "title": "Howard LC0008 Leather Conditioner",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": ["Gentle", "Cleans"],
        "description": [],
        "price": 19.99,
        "images": [{"thumb": "https://x"}],
        "videos": [],
        "store": "Howard Products",
        "categories": [],
        "details": {"Package Dimensions": "7.1 inches"},
        "parent_asin": "B03",
        "bought_together": None,
    }
]


def as_lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def dump(tmp_path: Path) -> Callable[..., list[str]]:
    """Files of reviews and of metadata, and the command for them."""

    def write(reviews: str, metadata: str = "", name: str = "reviews.json.gz") -> list[str]:
        paths = tmp_path / name, tmp_path / "meta.json.gz"
        for path, text in zip(paths, (reviews, metadata), strict=True):
            data = text.encode()
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return ["amazon", "--reviews", str(paths[0]), "--metadata", str(paths[1])]

    return write


ALL = ["--attributes", "title", "brand", "category", "price", "description", "features"]


def test_2014(dump: Callable[..., list[str]], run: Run) -> None:
    command = dump(REVIEWS_2014, METADATA_2014)
    done = run(*command)
    assert done.items == {
        "0000013714": {
            "title": 'Fifty Hymns & "Songs" of Jérôme',
            "brand": "Coxlures",
            "category": ("Sports", "Other", "Dance"),
        },
        "B01": {"category": ("Books",)},
    }
    assert done.events == [("A2SUAM1J3GNN3B", "0000013714", 1252800000), ("A1", "B01", 1252800001)]
    everything = run(*command, *ALL).items
    assert everything["0000013714"]["price"] == 3.17
    assert everything["B01"] == {"category": ("Books",), "description": "Only described ."}


def test_2018(dump: Callable[..., list[str]], run: Run) -> None:
    command = dump(REVIEWS_2018, as_lines(METADATA_2018))
    done = run(*command, *ALL)
    assert done.items == {
        "5120053084": {
            "title": "Shirt, blue",
            "brand": "Acme",
            "category": ("Clothing", "Shirts & Tees"),
            "price": 1024.5,
            "description": 'Fine "cotton". Soft',
            "features": ("100% cotton",),
        },
        "B02": {},
    }
    assert done.events == [("AUI6WTTT0QZYS", "5120053084", 1514764800), ("AUI6WTTT0QZYS", "B02", 1514764700)]
    assert done.about["counts"]["items_repeated"] == done.about["counts"]["items_without_text"] == 1
    assert list(run(*command, "--textless", "drop").items) == ["5120053084"]
    assert list(run(*command, "--attributes", "brand", "title").items["5120053084"]) == ["brand", "title"]


def test_2023(dump: Callable[..., list[str]], run: Run) -> None:
    done = run(*dump(REVIEWS_2023, as_lines(METADATA_2023)))
    assert done.items == {
        "B03": {"title": METADATA_2023[0]["title"], "brand": "Howard Products", "category": ("All Beauty",)}
    }
    assert done.events == [("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B03", 1588687728923)]
    for details in ({"Brand": "Howard"}, json.dumps({"Brand": "Howard"})):
        branded = run(*dump(REVIEWS_2023, as_lines([METADATA_2023[0] | {"details": details}])))
        assert branded.items["B03"]["brand"] == "Howard"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("A1,B01,5.0,1252800000\n", "user item rating timestamp"),
        ("B01,A1,5.0,1252800000\n", "item user rating timestamp"),
        ("user_id,parent_asin,rating,timestamp\nA1,B01,5.0,1252800000\n", ""),
    ],
)
def test_ratings_without_texts(text: str, columns: str, dump: Callable[..., list[str]], run: Run) -> None:
    command = dump(text, as_lines([{"asin": "B01", "title": "Desk"}]), name="ratings.csv")
    assert run(*command, *(["--columns", *columns.split()] if columns else [])).events == [("A1", "B01", 1252800000)]


def test_columns_are_not_guessed(dump: Callable[..., list[str]], run: Run) -> None:
    with pytest.raises(
        FileFormatError,
        match=r"csv, line 1: the first line does not name the columns; add --columns user",
    ):
        run(*dump("A1,B01,5.0,1252800000\n", name="ratings.csv"))
    with pytest.raises(FileFormatError, match=r"no column 'timestamp', there are user, item, rating, user"):
        run(*dump("A1,B01,5.0,1\n", name="ratings.csv"), "--columns", "user", "item", "rating", "user")
    with pytest.raises(FileFormatError, match=r"line 2: 3 columns, not 4"):
        run(*dump("user_id,parent_asin,rating,timestamp\nA1,B01,5.0\n", name="ratings.csv"))


def test_reviews_of_several_years_get_one_unit(
    tmp_path: Path, dump: Callable[..., list[str]], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    command = dump(REVIEWS_2018)
    more = tmp_path / "more.jsonl"
    more.write_text(REVIEWS_2023, encoding="utf-8")
    command = ["amazon", "--reviews", command[2], str(more), "--metadata", command[4]]
    done = run(*command)
    assert "2 in seconds and 1 in milliseconds; all are written in milliseconds" in caplog.text
    assert [time for _, _, time in done.events] == [1514764800000, 1514764700000, 1588687728923]


TITLES = {
    "JavaScript Date.getTime() Pocket Guide": "JavaScript Date.getTime() Pocket Guide",
    "function (novel), by A. Var": "function (novel), by A. Var",
    "var x: a poem": "var x: a poem",
    "Let it = be": "Let it = be",
    "Salt &amp;amp; Pepper <Deluxe> Set": "Salt & Pepper <Deluxe> Set",
    "Salt &amp;amp;amp; Pepper": "Salt & Pepper",
    "AT&T & R&D": "AT&T & R&D",
    "5 < 6 > 4 <3": "5 < 6 > 4 <3",
    "<Video> of a <Map> <2 pack>": "<Video> of a <Map> <2 pack>",
    "Oak<br>desk<BR/>and <b class='x'>mug</b>": "Oak desk and mug",
    "&amp;lt;p&amp;gt;Soft&lt;/p&gt;": "Soft",
    "Soft <!-- a > b --> mug<style>p {}</style><script>var a = 1;</script>": "Soft mug",
    "var aPageStart = (new Date()).getTime();": None,
    "\n  var ue_t0=ue_t0||+new Date();\nvar x = 2": None,
    "<!-- \nfunction foo(a, b) { return 1 }": None,
    "(function(f) {var _np=(window.P._namespace('x'))}": None,
    "<script type='text/javascript'>const a = getTime();</script>": None,
}


@pytest.mark.parametrize(("title", "text"), TITLES.items(), ids=range(len(TITLES)))
def test_what_is_text_and_what_is_a_page(
    title: str, text: str | None, dump: Callable[..., list[str]], run: Run
) -> None:
    reviews = '{"reviewerID": "A1", "asin": "B01", "unixReviewTime": 1252800001}'
    items = run(*dump(reviews, as_lines([{"asin": "B01", "title": title}]))).items
    assert items == {"B01": {} if text is None else {"title": text}}


@pytest.mark.parametrize(
    "header", ['"user_id","parent_asin","rating","timestamp"', " user_id, parent_asin, rating ,timestamp"]
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("columns", [[], ["--columns", "user", "item", "rating", "timestamp"]])
def test_a_quoted_header_is_a_header(
    header: str, mark: str, columns: list[str], dump: Callable[..., list[str]], run: Run
) -> None:
    command = dump(f'{mark}{header}\n"u1","B001","5.0","1577836800000"\n', name="ratings.csv")
    assert run(*command, *columns).events == [("u1", "B001", 1577836800000)]


def test_a_stray_quote_hides_no_ratings(dump: Callable[..., list[str]], run: Run) -> None:
    rows = ['u1,"B001,5.0,1577836800', *(f"u{n},B00{n},5.0,1577836800" for n in range(9)), 'u1,B001",5.0,1577836800']
    command = dump("\n".join(["user_id,parent_asin,rating,timestamp", *rows]), name="ratings.csv")
    with pytest.raises(FileFormatError, match="line 2: not CSV: a quote that opens a field is not closed in this line"):
        run(*command)
    assert len(run(*command, "--on-error", "skip").events) == 10


def test_several_files_are_one_data_set(tmp_path: Path, dump: Callable[..., list[str]], run: Run) -> None:
    command = dump(REVIEWS_2014, METADATA_2014)
    more = tmp_path / "more.jsonl"
    more.write_text(REVIEWS_2018, encoding="utf-8")
    done = run("amazon", "--reviews", command[2], more, "--metadata", command[4])
    assert len(done.events) == 4
    assert done.items["B02"] == {}


@pytest.mark.parametrize(
    ("reviews", "metadata", "reason"),
    [
        ('{"asin": "B01"}', "", r"reviews\.json\.gz, line 1: not a review: neither 'reviewerID'"),
        ('{"reviewerID": "A1", "asin": "B01"}', "", "line 1: no 'unixReviewTime' in this review"),
        ('{"reviewerID": "A1"', "", "line 1: not JSON"),
        ("[1]", "", "line 1: a line is a JSON object, not a list"),
        (
            REVIEWS_2014,
            "{'asin': 'B01', 'title': open('/etc/passwd')}",
            r"meta\.json\.gz, line 1: not a Python literal",
        ),
        (REVIEWS_2014, "{'asin': 'B01'", r"meta\.json\.gz, line 1: not a Python literal"),
        (REVIEWS_2014, "{'asin'}", r"meta\.json\.gz, line 1: not a dictionary"),
        (REVIEWS_2014, '{"title": "Desk"}', r"meta\.json\.gz, line 1: not metadata: neither 'asin'"),
        (REVIEWS_2014, '{"asin": "", "title": "Desk"}', r"meta\.json\.gz, line 1: item_id: .* 1 to 256 bytes"),
    ],
)
def test_a_broken_line_is_named_or_skipped(
    reviews: str, metadata: str, reason: str, dump: Callable[..., list[str]], run: Run
) -> None:
    with pytest.raises(FileFormatError, match=reason):
        run(*dump(reviews, metadata))
    done = run(*dump(f"{reviews}\n{REVIEWS_2014}", f"{metadata}\n{METADATA_2014}"), "--on-error", "skip")
    assert set(done.items) == {"0000013714", "B01"}


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, dump: Callable[..., list[str]], run: Run) -> None:
    command = dump(REVIEWS_2014, METADATA_2014)
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(FileFormatError, match=r"reviews\.json\.gz, line \d: cannot be read on"):
        run(*command, "--on-error", "skip")


def test_long_texts_are_cut(dump: Callable[..., list[str]], run: Run, caplog: pytest.LogCaptureFixture) -> None:
    long = {"asin": "B01", "title": "Desk", "description": ["é" * 9000], "feature": ["part"] * 3000}
    item = run(*dump(REVIEWS_2014, as_lines([long])), *ALL).items["B01"]
    assert item["description"] == "é" * ((8192 - len("description")) // 2)
    assert len(item["features"]) == (8192 - len("features") + 2) // 6
    assert "2 attributes were longer than 8192 bytes and were cut" in caplog.text
