"""The model of the snapshot that is served."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from index.catalogue.base import Catalogue
from index.snapshot.checkpoints import checkpoint_path
from index.snapshot.publication import published
from index.snapshot.snapshot import SnapshotStore, read_manifest
from seqrec.encoder import Encoder, Precision, load_model
from seqrec.errors import SnapshotError


def load_served_encoder(home: Path, catalogue: Catalogue, device: str | None = None) -> Encoder:
    """With the precision of the snapshot's vectors. Raises SnapshotError where nothing is published."""
    snapshot_id = published(catalogue)
    if snapshot_id is None:
        raise SnapshotError("no snapshot is published, so there is no model to encode with; `seqrec index build`")
    manifest = read_manifest(SnapshotStore(home).path_of(snapshot_id))
    return load_model(checkpoint_path(home, manifest), device, cast(Precision, manifest.precision))
