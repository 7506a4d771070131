from __future__ import annotations

import json
import re
import stat
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from index.catalogue.sqlite.catalogue import SqliteCatalogue
from index.keys.base import KeyStore, digest_of, make_key, parse_expiry, parse_limit
from index.keys.cli import keys
from index.keys.open import KEYS_FILE, open_keys
from index.keys.redis import RedisKeys
from index.keys.sqlite import SqliteKeys
from seqrec.errors import CatalogueError, InputError
from tests.contracts.key_contract import KeyContract


class TestSqliteKeys(KeyContract):
    def open(self, location: str) -> KeyStore:
        return SqliteKeys(location)

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return str(tmp_path / "home" / KEYS_FILE)


class TestRedisKeys(KeyContract):
    def open(self, location: str) -> KeyStore:
        return RedisKeys(location)

    @pytest.fixture
    def location(self, redis_url: str) -> str:
        return redis_url


def test_a_key_with_a_field_of_a_later_version_has_no_scopes_and_can_be_revoked(redis_url: str) -> None:
    """The field may restrict it; all other keys stay valid."""
    store = RedisKeys(redis_url)
    shop, later = (make_key(name, ["recommend"])[0] for name in ("shop", "later"))
    store.add(shop)
    store.add(later)
    client = redis.Redis.from_url(redis_url.partition("?")[0])
    prefix = parse_qs(urlsplit(redis_url).query)["prefix"][0]
    [where] = [key for key in client.scan_iter(f"*{prefix}*") if key.endswith(b"keys")]

    def record() -> dict[str, object]:
        found: dict[str, object] = json.loads(client.hget(where, "later"))
        return found

    client.hset(where, "later", json.dumps({**record(), "networks": ["10.0.0.0/8"]}))
    assert [(key.name, key.scopes) for key in store.all()] == [("later", frozenset()), ("shop", shop.scopes)]
    assert store.revoke("later", 5.0).revoked == 5.0
    assert record()["networks"] == ["10.0.0.0/8"]
    assert record()["scopes"] == ["recommend"]
    client.close()
    store.close()


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45.0), ("30m", 1800.0), ("12h", 43200.0), ("90d", 7776000.0), ("2w", 1209600.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_expiry(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "0d", "-1d", "90 days", "9999999999w", "101y"])
def test_bad_durations_are_named(text: str) -> None:
    with pytest.raises(InputError, match=f"expires: a time such as 90d.*not {text!r}"):
        parse_expiry(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("100/s", "100/second"), ("5/minute", "5/minute"), ("7/h", "7/hour"), ("1000000/day", "1000000/day")],
)
def test_limits(text: str, limit: str) -> None:
    assert parse_limit(text, "rate") == limit


@pytest.mark.parametrize("text", ["", "100", "0/s", "-1/s", "100/fortnight", "1/s;2/s", "1e3/s"])
def test_bad_limits_are_named(text: str) -> None:
    with pytest.raises(InputError, match=r"quota: a number of requests a second.*such as 100/s, not "):
        parse_limit(text, "quota")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "x" * 65, "ä"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="name: a name is 1 to 64 letters"):
        make_key(name, ["recommend"])


def test_secrets_are_long_random_and_not_part_of_the_key() -> None:
    key, secret = make_key("shop", ["recommend"])
    assert re.fullmatch(r"seqrec_[\w-]{43}", secret)
    assert key.digest == digest_of(secret)
    assert secret not in repr(key)
    assert make_key("shop", ["recommend"])[1] != secret


def test_admin_includes_every_scope() -> None:
    admin, _ = make_key("ops", ["admin"])
    writer, _ = make_key("feed", ["write"])
    assert admin.allows({"metrics"})
    assert writer.allows({"recommend", "write"})
    assert not writer.allows({"recommend"})


# The command


def test_a_key_is_created_listed_and_revoked(
    home: Path, catalogue: SqliteCatalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--home", str(home)]
    keys(["list", *at])
    assert "no keys; `seqrec keys create NAME --scope recommend` creates one" in capsys.readouterr().out
    keys(
        [
            "create",
            "shop",
            "--scope",
            "recommend",
            "write",
            "--expires",
            "90d",
            "--rate",
            "100/s",
            "--quota",
            "9/day",
            *at,
        ]
    )
    printed = capsys.readouterr()
    secret = printed.out.strip()
    assert re.fullmatch(r"seqrec_[\w-]{43}", secret), "nothing else, so that a script can take it"
    assert "not shown again" in printed.err
    keys(["list", *at])
    line = capsys.readouterr().out
    assert re.match(
        r"shop +active +recommend, write; expires 20\d\d-.*; at most 100/second; at most 9/day; created", line
    )
    assert secret not in line
    keys(["revoke", "shop", *at])
    assert "key shop is revoked" in capsys.readouterr().out
    keys(["list", "--json", *at])
    [record] = json.loads(capsys.readouterr().out)
    assert (record["state"], record["scopes"]) == ("revoked", ["recommend", "write"])


def test_the_file_has_no_secret_and_is_private(
    home: Path, catalogue: SqliteCatalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    keys(["create", "shop", "--scope", "admin", "--json", "--home", str(home)])
    secret = json.loads(capsys.readouterr().out)["key"]
    for path in home.glob(f"{KEYS_FILE}*"):
        assert secret.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(open_keys(home)) as store:
        assert store.all()[0].digest == digest_of(secret)


def test_a_key_for_a_home_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="there is no catalogue in"):
        keys(["create", "shop", "--scope", "admin", "--home", str(tmp_path / "elsewhere")])
    assert not (tmp_path / "elsewhere").exists()


def test_an_unknown_scope_is_wrong_usage(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        keys(["create", "shop", "--scope", "root", "--home", str(home)])
    assert "choose from" in capsys.readouterr().err
