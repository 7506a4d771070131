"""The program `seqrec`: a table of commands, each imported when it is first used.

A command is a function `(argv: list[str]) -> None` that raises SeqrecError for errors that the user can correct.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from seqrec.errors import SeqrecError, did_you_mean
from seqrec.registry import load
from seqrec.runtime.malloc import tune_malloc
from seqrec.runtime.threads import use_passive_waits

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("seqrec.shop.cli:init", "look at a shop's files and write shop.toml"),
    "up": ("seqrec.shop.cli:up", "import, train, evaluate, index and serve what shop.toml describes"),
    "check": ("seqrec.shop.cli:check", "what stands out in the shop's data, before training"),
    "status": ("seqrec.shop.cli:status", "what is up to date, what is served, how good it is"),
    "demo": ("seqrec.demo:main", "train, evaluate, index and serve the bundled data set"),
    "import": ("seqrec.data.sources.cli:import_data", "convert data sets and checkpoints of other formats"),
    "export": ("seqrec.data.sources.cli:export_data", "convert items and interactions to RecBole's files"),
    "pretrain": ("training.cli:pretrain", "pretrain a model on several data sets"),
    "train": ("training.cli:train", "train a model on items and interactions"),
    "runs": ("training.cli:list_runs", "list and compare training runs"),
    "evaluate": ("training.evaluation.cli:evaluate", "evaluate a model on held-out events"),
    "suite": ("training.suite.cli:suite", "reproduce the tables of papers"),
    "index": ("index.build.cli:index", "build, verify, publish, roll back and list snapshots"),
    "reindex": ("index.build.cli:reindex", "make and publish a new snapshot of the catalogue"),
    "sync": ("index.build.sync_cli:sync_items", "bring the catalogue to the state of a full export"),
    "consume": ("index.build.consume_cli:consume", "store the items and events of a Redis stream or a Kafka topic"),
    "retrain": ("retraining.cli:retrain_command", "train on the service's data, compare, publish if not worse"),
    "catalogue": ("index.backup.cli:catalogue", "dump, restore and show the catalogue"),
    "events": ("index.events.cli:events", "import users' events, and set which types count"),
    "users": ("index.events.users_cli:users", "export or delete what is stored of users"),
    "placements": (
        "service.rules.cli:placements",
        "list, show, set and delete named rules for recommendations",
    ),
    "report": ("service.reports.cli:report", "what became of recommendations, and how variants compare"),
    "compare": ("service.local.cli:compare_command", "what changes between two snapshots, for the same users"),
    "keys": ("index.keys.cli:keys", "create, list and revoke API keys"),
    "serve": ("service.cli:serve", "serve recommendations over HTTP"),
    "size": ("benchmarks.scale.sizing:size_command", "estimate machines for a catalogue and a load"),
    "doctor": ("service.doctor.cli:doctor", "check this machine, the settings and the stores, with advice"),
    "completion": ("seqrec.completion:completion", "print the completion script of a shell"),
    "bench": ("benchmarks.cli:bench", "measure speed and memory, compared with alternatives"),
}

PROJECT_FILE = "shop.toml"
PROJECT_COMMANDS = (
    "index",
    "reindex",
    "sync",
    "consume",
    "retrain",
    "catalogue",
    "events",
    "users",
    "placements",
    "report",
    "compare",
    "keys",
    "serve",
    "doctor",
)
"""Commands that take the service's settings from the project file in the current directory."""
SHOP_LIBRARIES = ("pyarrow", "charset_normalizer", "dateutil")
"""The extra `shop`, which a serving installation does without."""


TRAINING_LIBRARIES = ("accelerate", "matplotlib", "tensorboard", "tomli_w", "transformers")
"""The extra `train`, which a serving installation does without. Commands of the package `training` need it."""


def run(command: str, argv: Sequence[str]) -> None:
    """Load and call one command of the table."""
    target = COMMANDS[command][0]
    if command == "demo":
        _require_all_libraries()
    elif target.startswith("training."):
        _require_training_libraries()
    elif target.startswith("seqrec.shop."):
        _require_shop_libraries()
    load(target)(list(argv))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 130 interrupted,
    141 where the reader of the output is gone (`| head`)."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        from seqrec import __version__

        print(f"seqrec {__version__}")
        sys.exit(0)
    if argv[0] not in COMMANDS:
        hint = did_you_mean(argv[0], list(COMMANDS))
        print(f"seqrec: no command {argv[0]!r}{hint}; `seqrec --help` lists them", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("httpx", "faiss.loader"):
        logging.getLogger(library).setLevel(logging.WARNING)
    use_passive_waits()
    tune_malloc()
    # The tokenizers warn when a process forks after their thread pool was used; nothing here forks without exec.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if argv[0] in PROJECT_COMMANDS and Path(PROJECT_FILE).is_file():
            load("seqrec.shop.project:use_project")()
        run(argv[0], argv[1:])
        sys.stdout.flush()  # a reader that is gone is found here, not when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered is written at exit
        sys.exit(128 + signal.SIGPIPE)
    except SeqrecError as error:
        print(f"seqrec {argv[0]}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\nseqrec {argv[0]}: interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in _EXPLAINED:
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"seqrec {argv[0]}: {error.strerror}{where}; nothing half-written is left", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


_EXPLAINED = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of paths and disks, which the message of the operating system and the path explain."""


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a command like Ctrl-C, so that unfinished output is removed. `serve` handles it differently."""
    raise KeyboardInterrupt


def _require_training_libraries() -> None:
    """Checked before any work. Raises SeqrecError."""
    missing = [name for name in TRAINING_LIBRARIES if find_spec(name) is None]
    if missing:
        raise SeqrecError(
            f"the training libraries are not installed ({', '.join(missing)}): pip install 'seqrec[train]', or in a "
            "clone: pip install -c constraints.txt -e '.[cpu,train]'"
        )


def _require_shop_libraries() -> None:
    """Raises SeqrecError, which names the extra."""
    missing = [name for name in SHOP_LIBRARIES if find_spec(name) is None]
    if missing:
        raise SeqrecError(f"reading a shop's files needs {', '.join(missing)}: pip install 'seqrec[shop]'")


def _require_all_libraries() -> None:
    """Raises SeqrecError, with one command that installs what is missing of all extras."""
    extras = {"cpu": ("faiss",), "shop": SHOP_LIBRARIES, "train": TRAINING_LIBRARIES}
    missing = [name for names in extras.values() for name in names if find_spec(name) is None]
    if missing:
        raise SeqrecError(f"{', '.join(missing)}: not installed; pip install 'seqrec[{','.join(extras)}]'")


def usage() -> str:
    lines = ["usage: seqrec COMMAND [OPTIONS]   (seqrec COMMAND --help shows the options)", ""]
    lines += [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "examples:", "  seqrec demo", "  seqrec init --items products.csv --events log.csv && seqrec up"]
    return "\n".join(lines)
