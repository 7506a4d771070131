"""The program `seqrec`: one table of commands, each loaded when it is asked for.

A command is a function `(argv: list[str]) -> None` that raises SeqrecError for what the user can mend.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence

from seqrec.errors import SeqrecError
from seqrec.registry import load
from seqrec.runtime.malloc import tune_malloc
from seqrec.runtime.threads import use_passive_waits

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("seqrec.demo:main", "train, evaluate, index and serve the bundled data set"),
    "import": ("seqrec.data.sources.cli:import_data", "turn others' data sets and checkpoints into ours"),
    "export": ("seqrec.data.sources.cli:export_data", "turn items and interactions into RecBole's files"),
    "pretrain": ("training.cli:pretrain", "train a model on several data sets, to start others from"),
    "train": ("training.cli:train", "train a model on items and interactions"),
    "runs": ("training.cli:list_runs", "list training runs and compare them"),
    "evaluate": ("training.evaluation.cli:evaluate", "rank the whole catalogue for held-out items"),
    "suite": ("training.suite.cli:suite", "train the papers' models and write their tables"),
    "index": ("index.build.cli:index", "build, verify, publish, roll back and list snapshots"),
    "reindex": ("index.build.cli:reindex", "make a new snapshot of the catalogue and publish it"),
    "sync": ("index.build.sync_cli:sync_items", "bring the catalogue to the state of a full export"),
    "consume": ("index.build.consume_cli:consume", "store the items and events of a Redis stream"),
    "retrain": ("retraining.cli:retrain_command", "train on the service's own data, compare, publish if not worse"),
    "catalogue": ("index.backup.cli:catalogue", "dump, restore and show the catalogue"),
    "events": ("index.events.cli:events", "store what users did from files, and set which events count"),
    "users": ("index.events.users_cli:users", "print or delete what is stored of users"),
    "serve": ("service.cli:serve", "answer over HTTP"),
    "bench": ("benchmarks.cli:bench", "measure speed and memory beside what people would use instead"),
}


def run(command: str, argv: Sequence[str]) -> None:
    """Load and call one command of the table."""
    load(COMMANDS[command][0])(list(argv))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit code 0 done, 1 an error the message explains, 2 wrong usage, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        from seqrec import __version__

        print(f"seqrec {__version__}")
        sys.exit(0)
    if argv[0] not in COMMANDS:
        print(f"seqrec: no command {argv[0]!r}\n\n{usage()}", file=sys.stderr)
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
        run(argv[0], argv[1:])
    except SeqrecError as error:
        print(f"seqrec {argv[0]}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\nseqrec {argv[0]}: interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"seqrec {argv[0]}: {error.strerror}{where}; nothing half-written is left", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: what is half written is taken away. `serve` has its own way to stop."""
    raise KeyboardInterrupt


def usage() -> str:
    lines = ["usage: seqrec COMMAND [OPTIONS]   (seqrec COMMAND --help tells more)", ""]
    lines += [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(lines)
