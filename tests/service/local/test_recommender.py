"""`seqrec.Recommender`: what it opens, what goes in and out, and that it answers as the HTTP API does."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import seqrec
from index.catalogue.open import open_catalogue
from seqrec.errors import InputError, ItemNotFound, NotReady
from service.app import create_app
from service.local.opening import open_path
from service.settings import Settings
from tests.conftest import TINY
from tests.service.conftest import wait_until_ready


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.columns = rows, list(rows[0])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self.rows


@pytest.fixture
def recommender(home: Path) -> Iterator[seqrec.Recommender]:
    with seqrec.Recommender(home) as opened:
        yield opened


def test_it_answers_as_the_http_api(home: Path, recommender: seqrec.Recommender, shared_client: TestClient) -> None:
    history, filter = ["desk-1", {"title": "lamp brass"}], {"brand": ["Acme", "Lumen"]}
    answer = recommender.recommend(history, 3, filter=filter, explain=True)
    body = {"history": ["desk-1", {"attributes": {"title": "lamp brass"}}], "k": 3, "filter": filter, "explain": True}
    assert list(answer) == shared_client.post("/recommend", json=body).json()["items"]
    assert answer.source == "model"
    assert len(answer) == 3
    assert answer.item_ids == [item["item_id"] for item in answer]
    similar = shared_client.post("/similar", json={"item_id": "mug-1", "k": 2}).json()["items"]
    assert list(recommender.similar("mug-1", 2)) == similar


def test_unknown_items_and_popular_ones_are_said(recommender: seqrec.Recommender) -> None:
    answer = recommender.recommend(["gone"], 2)
    assert (answer.source, answer.unknown, answer.item_ids[0]) == ("fallback:popular", ["gone"], "mug-1")
    assert "not in the catalogue: gone" in repr(answer)
    assert "source: fallback:popular" in answer._repr_html_()


def test_an_item_that_was_added_is_found(home: Path, recommender: seqrec.Recommender) -> None:
    before = len(recommender)
    added = recommender.add([{"item_id": "desk-9", "title": "Oak desk", "brand": "Acme", "price": None}])
    assert (added["created"], added["updated"], added["not_searchable"]) == (1, 0, [])
    assert len(recommender) == before + 1
    assert recommender.similar("desk-1", 1).item_ids == ["desk-9"]
    assert recommender.recommend(["desk-1"], 1)[0]["attributes"] == {"title": "Oak desk", "brand": "Acme"}
    recommender.remove("desk-2")
    assert "desk-2" not in recommender.recommend(["desk-1"], 9).item_ids
    hidden = recommender.add([{"item_id": "desk-9", "attributes": {"title": "Oak desk"}, "available": False}])
    assert (hidden["updated"], hidden["not_searchable"]) == (1, ["desk-9"])
    recommender.close()
    catalogue = open_catalogue(home)
    assert "desk-9" in catalogue.ids()
    catalogue.close()


def test_a_service_on_the_same_home_sees_the_changes(client: TestClient, recommender: seqrec.Recommender) -> None:
    recommender.add([{"item_id": "desk-9", "title": "Oak desk"}])
    assert client.post("/similar", json={"item_id": "desk-1", "k": 1}).json()["items"][0]["item_id"] == "desk-9"
    client.post("/items", json={"items": [{"item_id": "desk-8", "attributes": {"title": "Oak desk"}}]})
    assert set(recommender.similar("desk-1", 2).item_ids) == {"desk-8", "desk-9"}


def test_more_items_than_a_batch_are_added(home: Path) -> None:
    with seqrec.Recommender(home, max_items=2) as recommender:
        assert recommender.add({"item_id": f"new-{n}", "title": f"Desk {n}"} for n in range(5))["created"] == 5


def test_tables_go_in(recommender: seqrec.Recommender) -> None:
    recommender.add(Frame([{"item_id": 7, "title": "Iron pan", "price": float("nan")}, {"item_id": 8, "title": "Pan"}]))
    assert recommender.recommend(Frame([{"item_id": 7}]), 1).item_ids == ["8"]
    assert recommender.recommend([7], 1).item_ids == ["8"]


def test_pandas_goes_in_and_out(recommender: seqrec.Recommender) -> None:
    pd = pytest.importorskip("pandas")
    items = pd.DataFrame(
        {
            "item_id": ["a", "b"],
            "title": ["Iron pan", "Iron pot"],
            "score": [1, 2],
            "made": pd.to_datetime(["2026-01-01", None]),
        }
    )
    assert recommender.add(items)["created"] == 2
    answer = recommender.recommend(pd.Series(["a"]), 1, candidates=["b"])
    frame = answer.to_pandas()
    assert list(frame.columns) == ["item_id", "score", "title", "attributes.score"]
    assert frame.loc[0, "attributes.score"] == 2
    assert recommender.recommend(items[["item_id"]], 1, candidates=["a"], exclude_seen=False)[0]["attributes"][
        "made"
    ].startswith("2026")
    assert list(recommender.recommend(["a"], 5, filter={"brand": "none"}).to_pandas().columns) == ["item_id", "score"]


def test_without_pandas_the_error_says_so(recommender: seqrec.Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        recommender.recommend(["desk-1"]).to_pandas()


def test_it_shows_itself(recommender: seqrec.Recommender) -> None:
    recommender.add([{"item_id": "<b>", "title": "<script>alert(1)</script> oak desk"}])
    answer = recommender.recommend(["desk-1"], 5, explain=True)
    assert "<script" not in answer._repr_html_()
    assert "&lt;script&gt;" in answer._repr_html_()
    assert "<th>because</th>" in answer._repr_html_()
    assert "desk-2" in repr(answer)
    assert "9 items, model bag_of_words" in repr(recommender)
    recommender.close()
    assert "closed" in recommender._repr_html_()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: r.recommend("desk-1"), "history: a list or a table is needed, not str"),
        (lambda r: r.recommend(["a", 1.5]), r"history\[1\]: an item id or a dict of attributes, not float"),
        (lambda r: r.recommend([], k="3"), 'k: expected a whole number, not "3"'),
        (lambda r: r.recommend([], kk=3), "kk: no such field; there are k, exclude,"),
        (lambda r: r.recommend([], filter={"price": {"under": 3}}), r"filter\.price"),
        (lambda r: r.recommend(), "history: give a history, or a user_id"),
        (lambda r: r.add([{"title": "no id"}]), r"items\[0\]: an item is a dict such as"),
        (lambda r: r.add({"item_id": "a"}), "items: a list or a table is needed, not dict"),
        (lambda r: r.add([{"item_id": "a", "title": object()}]), "title"),
        (lambda r: (r.close(), r.recommend(["a"])), "is closed"),
    ],
)
def test_errors_name_the_value(recommender: seqrec.Recommender, call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(recommender)


def test_similar_to_no_item(recommender: seqrec.Recommender) -> None:
    with pytest.raises(ItemNotFound, match="no item 'gone'"):
        recommender.similar("gone")


# What it opens


def test_a_checkpoint_with_items_and_events(
    bag_of_words_checkpoint: Path, items_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    items = [{"item_id": item_id, **attributes} for item_id, attributes in TINY]
    events = [{"user_id": "u", "item_id": "pot/1", "timestamp": n} for n in range(3)]
    with seqrec.Recommender(bag_of_words_checkpoint, items=items, events=events) as recommender:
        assert recommender.recommend([], 1).item_ids == ["pot/1"]
        assert set(recommender.similar({"title": "brass lamp"}, 2).item_ids) == {"lamp-1", "lamp-2"}
        assert len(list(temporary.iterdir())) == 1
    assert list(temporary.iterdir()) == []
    with seqrec.Recommender(bag_of_words_checkpoint, items=items_file) as recommender:
        assert len(recommender) == len(TINY)


def test_the_garbage_collection_of_a_program_stays_as_it_is(home: Path) -> None:
    """A service of its own excludes what it has loaded: what a program opens and closes would never be freed."""
    before = gc.get_freeze_count(), sys.getswitchinterval()
    with seqrec.Recommender(home):
        assert (gc.get_freeze_count(), sys.getswitchinterval()) == before
    try:
        with TestClient(create_app(Settings(home=home), own_process=True)) as client:
            wait_until_ready(client)
            assert gc.get_freeze_count() > before[0] + 10_000
            assert sys.getswitchinterval() < before[1]
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before[1])


def test_a_project_file_and_its_folder(home: Path, tmp_path: Path) -> None:
    text = 'format = 1\nhome = "home"\n[items]\npath = "i.csv"\ncolumns = {id = "id"}\n[events]\npath = "e.csv"\n'
    (tmp_path / "shop.toml").write_text(
        text + 'user = "u"\nitem = "i"\n[serve]\nmax_k = 3\nretrain_every = "24h"\n', encoding="utf-8"
    )
    for path in (tmp_path, tmp_path / "shop.toml"):
        with seqrec.Recommender(path) as recommender, pytest.raises(InputError, match="k: from 1 to 3, not 4"):
            recommender.recommend(["desk-1"], 4)
        assert open_path(path, None, None, {}).settings.retrain_every is None


def test_what_cannot_be_opened(tmp_path: Path, home: Path, bag_of_words_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        seqrec.Recommender(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a home nor a checkpoint"):
        seqrec.Recommender(tmp_path / "empty")
    with pytest.raises(InputError, match="give items="):
        seqrec.Recommender(bag_of_words_checkpoint)
    with pytest.raises(InputError, match="only with a checkpoint"):
        seqrec.Recommender(home, items=[])
    with pytest.raises(
        InputError, match=r"SEQREC_THREDS: no such setting, did you mean 'SEQREC_THREADS'\?; there are "
    ):
        seqrec.Recommender(home, threds=2)
    open_catalogue(tmp_path / "empty", create=True).close()
    with pytest.raises(NotReady):
        seqrec.Recommender(tmp_path / "empty")


# The package


def test_dir_shows_what_there_is() -> None:
    assert [name for name in dir(seqrec) if not name.startswith("_")] == sorted(seqrec.__all__)
    assert all(getattr(seqrec, name).__doc__ for name in seqrec.__all__)
    with pytest.raises(AttributeError, match="module 'seqrec' has no attribute 'recommend'"):
        seqrec.recommend  # noqa: B018


def test_importing_seqrec_loads_nothing(root: Path) -> None:
    code = "import seqrec, sys; print(sorted({'torch', 'numpy', 'pydantic', 'service', 'index'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_a_program_that_forgets_to_close_ends(home: Path, root: Path) -> None:
    code = f"import seqrec; print(len(seqrec.Recommender({str(home)!r}).recommend(['desk-1'], 3)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_the_number_of_a_placement_counts(client: TestClient, recommender: seqrec.Recommender) -> None:
    assert client.put("/placements/home", json={"k": 1}).status_code == 200
    assert len(recommender.recommend(["desk-1"], placement="home")) == 1
    assert len(recommender.similar("desk-1", placement="home")) == 1
    assert len(recommender.recommend(["desk-1"], 2, placement="home")) == 2
    assert len(recommender.recommend(["desk-1"])) > 1
