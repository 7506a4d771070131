"""The catalogue and the events of a service as the files that training reads."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from index.catalogue.base import Catalogue
from index.catalogue.histories import HistoryStore, merge_sessions
from seqrec.data.files import private_opener
from seqrec.errors import InputError


@dataclass(frozen=True)
class ExportedData:
    """Files with all items, and the events that make history of items that are in the catalogue.

    events_seq: the number of the log of events before anything was read.
    """

    items_file: Path
    interactions_file: Path
    items: int
    available: int
    events: int
    unknown: int  # events of items that are in no catalogue
    ignored: int  # events of types that make no history
    events_seq: int
    weights: Mapping[str, float]  # of types of events, apart from 1


def export(catalogue: Catalogue, histories: HistoryStore, directory: Path) -> ExportedData:
    """Write both files, readable by their owner only. Raises InputError where there are no events."""
    events_seq, types = histories.events_head(), histories.types()
    items_file, interactions_file = directory / "items.jsonl", directory / "interactions.csv"
    known: set[str] = set()
    available = 0
    with open(items_file, "w", encoding="utf-8", opener=private_opener) as file:
        for _, entry in catalogue.scan():
            item = entry.item
            record = {"item_id": item.item_id, "attributes": dict(item.attributes), "available": item.available}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            known.add(item.item_id)
            available += item.available
    found: Counter[str] = Counter()
    with open(interactions_file, "w", encoding="utf-8", newline="", opener=private_opener) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["user_id", "item_id", "timestamp", "type"])
        for _, own in groupby(histories.scan(), lambda event: event.user_id):
            history = []
            for event in own:
                if types.of(event.type).kind == "history":
                    history.append(event)
                else:
                    found["ignored"] += 1
            for event in merge_sessions(history, types):
                if event.item_id not in known:
                    found["unknown"] += 1
                else:
                    found["events"] += 1
                    rows.writerow([event.user_id, event.item_id, repr(event.timestamp), event.type])
    if not found["events"]:
        raise InputError(
            "the service has no events of items in its catalogue, so there is nothing to train on; POST /events or "
            "`seqrec events import` stores some"
        )
    return ExportedData(
        items_file,
        interactions_file,
        len(known),
        available,
        found["events"],
        found["unknown"],
        found["ignored"],
        events_seq,
        {name: one.weight for name, one in types.by_name.items() if one.kind == "history" and one.weight != 1},
    )
