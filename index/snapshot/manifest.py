"""What a snapshot says of itself: where it comes from, what made it, and what its files must be."""

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

FORMAT = 1


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
    """The snapshot holds the items whose last change is at most this; all that came later is in the log."""
    checkpoint: str
    """Digest of the checkpoint; those below say which parts of it made the vectors and the token ids."""
    model: str
    item_tower: str
    history_tower: str
    tokenizer: str
    item_text: str
    precision: str  # in which the vectors were encoded
    dtype: str  # in which they are stored
    metric: str
    dim: int
    count: int
    index: str  # flat, or a FAISS factory string; what was asked for, until the snapshot is written
    recall: float
    """Recall@10 of the index against exact search, measured with vectors of the items as queries."""
    popularity: bool  # whether interactions were counted; all counts are 0 otherwise
    files: Mapping[str, FileRecord]
    # Since there are other kinds than flat: what was written before lacks them.
    index_asked: str = "flat"
    """What the next reindex asks for again: flat, auto or a factory string."""
    index_why: str = ""
    index_effort: str = ""
    """Search parameter of an approximate index, such as nprobe=16."""
    # Since there are counts and term vectors; older snapshots have neither.
    events_seq: int | None = None
    """The last number of the events' log that is counted in it; None: it holds no counts."""
    events_log: str = ""
    """Which log of events that number belongs to."""
    pairs: Mapping[str, Any] | None = None
    """How pairs were counted; None: only events were."""
    hybrid: bool = False
    """Whether it holds term vectors and, where pairs were counted, co-occurrence."""

    @classmethod
    def begun(
        cls, encoder: Encoder, snapshot_id: str, catalogue_id: str, seq: int, index: str, popularity: bool
    ) -> Manifest:
        """Of a snapshot that is to be written from vectors of `encoder`; the writer says the rest."""
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
        return json.dumps(record | {"digest": _digest(record)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises SnapshotError for anything that `to_json` did not write."""
        try:
            record = json.loads(text)
            if record["format"] != FORMAT:
                raise SnapshotError(f"it has format {record['format']!r}; this version reads format {FORMAT}")
            if record.pop("digest") != _digest(record):
                raise SnapshotError("it was altered: its digest is another one")
            values: dict[str, Any] = {
                field.name: record[field.name] if field.default is MISSING else record.get(field.name, field.default)
                for field in fields(cls)
            }
            values["files"] = {name: FileRecord(**file) for name, file in record["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SnapshotError("it is no manifest of a snapshot, or was cut short") from error
        return cls(**values)


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
