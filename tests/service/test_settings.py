"""Settings from the environment: what is read, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrec.errors import InputError
from service.settings import Settings, is_loopback, load_settings


def test_defaults_are_those_of_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEQREC_DEADLINE")
    settings = load_settings()
    assert (settings.home, settings.host, settings.port) == (Path("var"), "127.0.0.1", 8000)
    assert settings.max_body_bytes == 4 * 1024 * 1024
    assert (settings.max_items, settings.max_history, settings.max_k) == (1000, 1000, 1000)
    assert (settings.max_ids, settings.max_batch, settings.deadline) == (10_000, 64, 2.0)


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEQREC_HOME", str(tmp_path))
    monkeypatch.setenv("SEQREC_PORT", "0")
    monkeypatch.setenv("SEQREC_DEADLINE", "0.5")
    monkeypatch.setenv("SEQREC_DEVICE", "")
    settings = load_settings()
    assert (settings.home, settings.port, settings.deadline, settings.device) == (tmp_path, 0, 0.5, None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SEQREC_PORT", "http", 'SEQREC_PORT: expected a whole number, not "http"'),
        ("SEQREC_PORT", "70000", 'SEQREC_PORT: expected at most 65535, not "70000"'),
        ("SEQREC_DEADLINE", "0", 'SEQREC_DEADLINE: expected more than 0.0, not "0"'),
        ("SEQREC_DEADLINE", "inf", 'SEQREC_DEADLINE: expected a finite number, not "inf"'),
        ("SEQREC_PRECISION", "float16", "SEQREC_PRECISION: expected one of 'float32', 'bfloat16' or 'int8'"),
        ("SEQREC_PROT", "8001", "SEQREC_PROT: no such setting, did you mean 'SEQREC_PORT'.*; there are .*SEQREC_PORT"),
        ("SEQREC_REDIS_URL", "http://localhost", "SEQREC_REDIS_URL: expected text that matches"),
        ("SEQREC_WORKERS", "0", 'SEQREC_WORKERS: expected at least 1, not "0"'),
    ],
)
def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        load_settings()


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
        ("name.invalid", False),
    ],
)
def test_loopback_addresses_are_recognised(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_requests_without_a_key_are_served_on_loopback_addresses_or_as_set() -> None:
    assert Settings().anonymous
    assert not Settings(host="0.0.0.0").anonymous
    assert Settings(host="0.0.0.0", allow_anonymous=True).anonymous
    assert not Settings(allow_anonymous=False).anonymous


def test_origins_are_compared_in_lower_case_without_a_slash_at_the_end() -> None:
    assert Settings(cors_origins=" https://Shop.example/ ,http://a.example:8080,").origin_list == {
        "https://shop.example",
        "http://a.example:8080",
    }
