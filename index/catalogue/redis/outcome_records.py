"""Outcomes as the scripts write them: attributions of events, and sums by field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from index.catalogue.outcomes import (
    MAX_POSITION,
    MOMENTS,
    Attribution,
    Counts,
    CountsRow,
    Dimension,
    Moments,
    Slot,
    Trial,
)

_PARTS = ("placement", "version", "experiment", "variant", "model", "snapshot", "position", "source", "cold")
_NUMBERS = ("version", "position", "cold")


def attribution_record(of: Attribution | None) -> str:
    """The line of an event's member; "" without an attribution."""
    if of is None:
        return ""
    slot = of.slot
    trial = f"{slot.placement}|{slot.experiment}|{slot.variant}" if slot.experiment else ""
    parts = (slot.placement, slot.version, slot.experiment, slot.variant, slot.model, slot.snapshot)
    place = (min(of.position, MAX_POSITION), of.source, int(of.cold))
    propensity = "" if of.propensity is None else f" {of.propensity!r}"
    return f"{of.recommendation.hex()} {of.day} {trial} {'|'.join(map(str, (*parts, *place)))}{propensity}"


def attribution_of_record(record: str) -> Attribution:
    """What `attribution_record` was made of."""
    recommendation, _, _, group, *propensity = record.split(" ")
    placement, version, experiment, variant, model, snapshot, position, source, cold = group.split("|")
    slot = Slot(placement, int(version), experiment, variant, model, snapshot)
    return Attribution(bytes.fromhex(recommendation), slot, int(position), source, cold == "1", *map(float, propensity))


def counts_rows(days: Iterable[Sequence[bytes]], by: Dimension) -> list[CountsRow]:
    """Of the fields and values of days."""
    found: dict[tuple[str, str, str | int], dict[str, float]] = {}
    for pairs in days:
        for field, total in zip(pairs[::2], pairs[1::2], strict=True):
            *parts, name = field.decode().split("|")
            named = dict(zip(_PARTS, parts, strict=True))
            key: str | int = int(named[by]) if by in _NUMBERS else named[by]
            experiment = named["experiment"] if by == "variant" else ""
            sums = found.setdefault((named["placement"], experiment, key), {})
            sums[name] = sums.get(name, 0.0) + float(total)
    rows = [CountsRow(*of, Counts(**sums)) for of, sums in found.items() if sums.get("shown")]
    return sorted(rows, key=lambda row: (row.placement, row.experiment, row.key))


def trial_row(trial: str, pairs: Sequence[bytes]) -> Trial:
    sums = {name.decode(): float(total) for name, total in zip(pairs[::2], pairs[1::2], strict=True)}
    placement, experiment, variant = trial.split("|")
    return Trial(placement, experiment, variant, Moments(**{name: sums.get(name, 0.0) for name in MOMENTS}))
