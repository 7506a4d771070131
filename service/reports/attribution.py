"""From answers to ids of recommendations, and from posted events with such an id to what they are outcomes of."""

from __future__ import annotations

from collections.abc import Iterator

from index.catalogue.outcomes import OUTCOMES, Attribution, Slot
from seqrec.errors import InputError
from service.engine.execution import Answer
from service.live.search import Hit
from service.reports.receipts import Listed, make_receipt, read_receipt

_DIGEST = 16
"""Characters of a model's digest that reports show."""


def recommendation_id(secret: bytes, answer: Answer, endpoint: str) -> str:
    """`endpoint` stands for the placement where there is none."""
    exposure, view = answer.exposure, answer.view
    slot = Slot(
        exposure.placement or endpoint,
        exposure.version,
        exposure.experiment,
        exposure.variant,
        view.towers.checkpoint.digest[:_DIGEST],
        view.snapshot.id,
    )
    return make_receipt(secret, slot, answer.shown_before, _listed(answer))


def attribution(secret: bytes, max_age: float, receipt: str, type: str, item_id: str, field: str) -> Attribution:
    """Of an event with an id; `max_age` in seconds. Raises InputError. `field` is prepended to names of fields."""
    if type not in OUTCOMES:
        raise InputError(
            f"an event with a recommendation_id is one of {', '.join(OUTCOMES)}, not {type!r}", f"{field}type"
        )
    read = read_receipt(secret, receipt, max_age, f"{field}recommendation_id")
    return read.attribution(item_id, f"{field}recommendation_id")


def _listed(answer: Answer) -> Iterator[Listed]:
    for (item, _), hit, cold in zip(answer.items, answer.hits, answer.cold, strict=True):
        yield Listed(item.item_id, item_source(answer, hit), cold, hit.propensity)


def item_source(answer: Answer, hit: Hit) -> str:
    """How an item came into an answer, one of `service.reports.receipts.SOURCES`."""
    if hit.pinned or hit.explored:
        return "pinned" if hit.pinned else "explored"
    if answer.source != "model" and not answer.ruled:
        return "popular"
    return f"{hit.source}:{hit.part}" if hit.part else hit.source
