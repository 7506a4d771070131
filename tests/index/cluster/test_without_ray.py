"""Only `--ray` needs Ray: nothing else imports it, and where it is missing one line names the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from index.build.cli import index, reindex
from index.build.reindex import Request, make_snapshot
from index.cluster.on_ray import Cluster
from seqrec.data.items import Item
from seqrec.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_no_module_imports_it() -> None:
    code = "import sys, service.app, index.build.cli, retraining.cli; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_where_it_is_missing_the_extra_is_named(
    home: Path, bag_of_words_checkpoint: Path, tiny_items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # what the command sets ends with the test
    request = Request(bag_of_words_checkpoint, tiny_items, cluster=Cluster("local"))
    with pytest.raises(InputError, match=r"^ray: .*: pip install 'seqrec\[ray\]'$"):
        make_snapshot(home, request)
    # Nothing was imported, and without Ray the same request succeeds.
    assert make_snapshot(home, Request(bag_of_words_checkpoint, tiny_items)).imported.created == len(tiny_items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--actors", "2"], "--actors: it needs --ray, which names the cluster"),
        (["--gpus-per-actor", "1"], "--gpus-per-actor: it needs --ray, which names the cluster"),
    ],
)
def test_an_option_of_it_alone_is_refused(options: list[str], message: str, home: Path) -> None:
    with pytest.raises(InputError, match=message):
        reindex(["--home", str(home), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--actors", "0"], "argument --actors: a whole number from 1, not '0'"),
        (["--gpus-per-actor", "1.5"], "a whole number from 1, or a fraction of a GPU such as 0.5, not '1.5'"),
        (["--gpus-per-actor", "none"], "a whole number from 1, or a fraction of a GPU such as 0.5, not 'none'"),
    ],
)
def test_a_wrong_number(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        index(["build", "--checkpoint", "x", "--ray", "local", *options])
    assert message in capsys.readouterr().err
