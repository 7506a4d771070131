"""The manifest of a snapshot: its catalogue, model and settings, and the size and digest of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from seqrec.errors import SnapshotError

if TYPE_CHECKING:  # torch is not needed to read one
    from seqrec.encoder import Encoder

FORMAT = 2
_OLD_NAMES = {1: {"search_params": "index_effort", "index_requested": "index_asked"}, 2: {}}
"""Formats that are read, with fields that have another name there."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    snapshot_id: str
    created: str  # ISO 8601, UTC
    catalogue_id: str
    seq: int
    """The snapshot has the items whose last change is at most this; later changes are in the log."""
    checkpoint: str
    """Digest of the checkpoint. The four below identify the parts that made vectors and token ids."""
    model: str
    item_tower: str
    history_tower: str
    tokenizer: str
    item_text: str
    precision: str  # of the encoder that made the vectors
    dtype: str  # of the stored vectors
    metric: str
    dim: int
    count: int
    index: str  # flat, or a FAISS factory string; until the snapshot is written, the requested one
    recall: float
    """Recall@10 of the index against exact search, measured with vectors of the items as queries."""
    popularity: bool  # whether events were counted; if not, all counts are 0
    files: Mapping[str, FileRecord]
    # Manifests from before approximate indexes lack these three.
    index_requested: str = "flat"
    """What was requested, and the next reindex requests again: flat, auto or a factory string."""
    index_why: str = ""
    search_params: str = ""
    """Of an approximate index, such as nprobe=16."""
    # Manifests from before the log of events lack these four.
    events_seq: int | None = None
    """The last number of the log of events that is counted in it; None: it has no counts."""
    events_log: str = ""
    """The id of the log that this number belongs to."""
    pairs: Mapping[str, Any] | None = None
    """The settings that pairs were counted with; None: only events were counted."""
    event_times: bool = False
    """Whether the time of each counted event is in it; manifests of some versions lack this one alone."""
    hybrid: bool = False
    """Whether it has term vectors and, if pairs were counted, co-occurrence."""
    columns: bool = False
    """Whether it has columns of attributes; manifests of earlier versions lack this one."""

    @classmethod
    def begun(
        cls, encoder: Encoder, snapshot_id: str, catalogue_id: str, seq: int, index: str, popularity: bool
    ) -> Manifest:
        """For a snapshot with vectors of `encoder`; the writer fills in what it measures."""
        checkpoint = encoder.checkpoint
        return cls(
            snapshot_id=snapshot_id,
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            catalogue_id=catalogue_id,
            seq=seq,
            checkpoint=checkpoint.digest,
            model=checkpoint.model_name,
            item_tower=checkpoint.item_tower,
            history_tower=checkpoint.history_tower,
            tokenizer=checkpoint.tokenizer,
            item_text=checkpoint.item_text,
            precision=encoder.precision,
            dtype="float32",
            metric=encoder.metric.value,
            dim=encoder.dim,
            count=0,
            index=index,
            recall=0.0,
            popularity=popularity,
            files={},
        )

    def to_json(self) -> str:
        record = {"format": FORMAT} | asdict(self)
        return json.dumps(record | {"digest": record_digest(record)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises SnapshotError for anything that `to_json` did not write."""
        try:
            record = json.loads(text)
            old_names = _OLD_NAMES.get(record["format"])
            if old_names is None:
                raise SnapshotError(
                    f"it has format {record['format']!r}; this version reads formats 1 to {FORMAT}. Use the version "
                    "that wrote it or a newer one, or make a new snapshot with `seqrec reindex`"
                )
            if record.pop("digest") != record_digest(record):
                raise SnapshotError("it was altered: its digest does not match")
            record |= {name: record[old] for name, old in old_names.items() if old in record}
            values: dict[str, Any] = {
                field.name: record[field.name] if field.default is MISSING else record.get(field.name, field.default)
                for field in fields(cls)
            }
            values["files"] = {name: FileRecord(**file) for name, file in record["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SnapshotError("it is not the manifest of a snapshot, or was cut short") from error
        return cls(**values)


def record_digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
