"""`seqrec size`: machines for a catalogue and a load, from the measured numbers in sizing.toml."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from seqrec.errors import InputError
from seqrec.runtime.arguments import Parser

NUMBERS = Path(__file__).with_name("sizing.toml")
Search = Literal["exact", "approximate", "milvus"]


@dataclass(frozen=True, slots=True)
class Load:
    items: float
    rps: float  # recommendations a second, at the busiest hour
    history: float  # items of a history
    dim: int = 384
    precision: str = "int8"
    repeated: float = 0.0  # share of requests whose history was encoded before
    cores: int = 16  # of a machine
    memory: float = 64.0  # GB of a machine


@dataclass(frozen=True, slots=True)
class Size:
    """Times in core-milliseconds a request, sizes in GB of 10^9 bytes."""

    search: Search
    encode_core_ms: float
    search_core_ms: float
    cores: float  # of the service, with room for a p99 of twice the longest request
    machines: int
    machine_memory: float  # needed on each
    milvus_memory: float  # of all its machines
    milvus_cores: float
    milvus_machines: int
    disk: float  # of one snapshot
    encode_core_hours: float  # all items once
    reindex_hours: float  # one process, all vectors known
    core_hours_per_million: float  # of recommendations, at that load


def estimate(load: Load, numbers: dict[str, Any] | None = None) -> Size:
    """Raises InputError for a precision that was not measured."""
    numbers = tomllib.loads(NUMBERS.read_text(encoding="utf-8")) if numbers is None else numbers
    known, assumed = numbers["measured"], numbers["assumed"]
    if load.precision not in known["history_tokens_per_core_s"]:
        raise InputError(f"measured are {', '.join(known['history_tokens_per_core_s'])}", "precision")
    tokens = min(load.history * known["item_tokens"], assumed["history_tokens_most"])
    encode = (1 - load.repeated) * tokens / known["history_tokens_per_core_s"][load.precision] / known["serving_share"]
    vector_bytes = 4 * load.items * load.dim
    search: Search = "exact" if load.items * load.dim <= known["exact_up_to"] else "approximate"
    memory = known["memory_share"] * vector_bytes + assumed["worker_bytes"]
    if memory > load.memory * 1e9:
        search = "milvus"
    compared = load.items
    if search != "exact":
        compared = min(load.items, assumed["approximate_share"] * load.items + 4 * math.sqrt(load.items))
    searching = compared * load.dim * known["search_core_s_per_number"]
    here = encode if search == "milvus" else encode + searching
    cores = load.rps * here / known["load_share"]
    milvus_memory = milvus_cores = 0.0
    milvus_machines = 0
    if search == "milvus":
        memory = assumed["worker_bytes"]
        milvus_memory = assumed["milvus_bytes_per_number"] * load.items * load.dim
        milvus_cores = load.rps * searching / known["load_share"]
        room = assumed["milvus_machine_share"] * load.memory * 1e9
        milvus_machines = max(math.ceil(milvus_memory / room), math.ceil(milvus_cores / load.cores))
    return Size(
        search=search,
        encode_core_ms=1e3 * encode,
        search_core_ms=1e3 * searching,
        cores=cores,
        machines=max(assumed["machines_least"], math.ceil(cores / load.cores)),
        machine_memory=memory / 1e9,
        milvus_memory=milvus_memory / 1e9,
        milvus_cores=milvus_cores,
        milvus_machines=milvus_machines,
        disk=(vector_bytes + load.items * (assumed["text_bytes"] + 5 * known["item_tokens"])) / 1e9,
        encode_core_hours=load.items * known["item_tokens"] / known["item_tokens_per_core_s"][load.precision] / 3600,
        reindex_hours=load.items / known["reindex_items_per_s"] / 3600,
        core_hours_per_million=1e6 * (encode + searching) / known["load_share"] / 3600,
    )


ROWS = (
    ("search", "search"),
    ("encode_core_ms", "encoding a request, core-ms"),
    ("search_core_ms", "searching for a request, core-ms"),
    ("cores", "cores of the service"),
    ("machines", "machines of the service"),
    ("machine_memory", "memory on each, GB"),
    ("milvus_memory", "memory of Milvus, GB (assumed)"),
    ("milvus_cores", "cores of Milvus (assumed)"),
    ("milvus_machines", "machines of Milvus (assumed)"),
    ("disk", "disk of a snapshot, GB"),
    ("encode_core_hours", "encoding all items once, core-hours"),
    ("reindex_hours", "reindex with known vectors, hours"),
    ("core_hours_per_million", "core-hours of a million recommendations"),
)


def size_table(loads: Sequence[Load]) -> str:
    """A Markdown table with a column a load."""
    sizes = [asdict(estimate(load)) for load in loads]
    lines = ["| items | " + " | ".join(shown(load.items) for load in loads) + " |"]
    lines.append("|---|" + "---:|" * len(loads))
    for name, text in ROWS:
        lines.append(f"| {text} | " + " | ".join(shown(size[name]) for size in sizes) + " |")
    return "\n".join(lines)


def shown(value: float | str) -> str:
    """Two digits that count, nothing here is known better; whole numbers of machines as they are."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or not value:
        return f"{value:,.0f}"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def size_command(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="seqrec size",
        description="Estimate machines for a catalogue and a load from measured numbers (benchmarks/scale/sizing.toml; "
        "docs/sizing.md says how each was measured and what is assumed).",
    )
    parser.add_argument(
        "--items", type=float, nargs="+", required=True, metavar="N", help="such as 1e6; several: a column each"
    )
    parser.add_argument(
        "--rps", type=float, required=True, metavar="R", help="recommendations a second when it is busiest"
    )
    parser.add_argument("--history", type=float, required=True, metavar="H", help="items of a history")
    parser.add_argument("--dim", type=int, default=384, help="numbers of a vector; default: 384")
    parser.add_argument("--precision", default="int8", help="of the encoder: float32 or int8 (default)")
    parser.add_argument(
        "--repeated", type=float, default=0.0, metavar="SHARE", help="of requests whose history is cached; default: 0"
    )
    parser.add_argument("--cores", type=int, default=16, help="of a machine; default: 16")
    parser.add_argument("--memory", type=float, default=64.0, metavar="GB", help="of a machine; default: 64")
    parser.add_argument(
        "--core-hour", type=float, metavar="PRICE", help="also print the cost of a million recommendations"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(argv)
    for name in ("items", "rps", "history", "dim", "cores", "memory"):
        values = getattr(given, name)
        if min(values if isinstance(values, list) else [values]) <= 0:
            raise InputError("must be above 0", name)
    if not 0 <= given.repeated <= 1:
        raise InputError("a share from 0 to 1", "repeated")
    loads = [
        Load(n, given.rps, given.history, given.dim, given.precision, given.repeated, given.cores, given.memory)
        for n in given.items
    ]
    sizes = [estimate(load) for load in loads]
    if given.json:
        print(json.dumps([asdict(load) | asdict(size) for load, size in zip(loads, sizes, strict=True)], indent=1))
        return
    print(size_table(loads))
    if given.core_hour is not None:
        costs = " | ".join(f"{size.core_hours_per_million * given.core_hour:.2f}" for size in sizes)
        print(f"| cost of a million recommendations | {costs} |")
