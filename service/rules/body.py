"""The rules of a request or a placement as they are sent: base of the HTTP bodies, and what placements store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from index.catalogue.words import is_unicode
from seqrec.data.items import MAX_ITEM_ID_BYTES, check_item_id
from seqrec.errors import InputError
from service.live.filter_language import parse_filter
from service.rules.experiments import HOLDOUT, Experiment, Shadow, Variant
from service.rules.ranking import Boost, Explore, Pin
from service.rules.rotation import MAX_EVENTS, Rotate
from service.settings import Settings

MAX_UNKNOWN_FIELDS = 20
MAX_RULES = 32
"""Boosts of a request, and pins."""
MAX_FILTER_VALUES = 10_000
"""In the filters of a placement."""


class Body(BaseModel):
    """Base of request bodies: unknown fields are refused, "10" and NaN are not numbers.

    Lists fail at their first bad entry, and many unknown fields are one error: a body must not cost more than its size.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_unknown_fields(cls, data: object) -> object:
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + MAX_UNKNOWN_FIELDS:
            first = next(name for name in data if name not in cls.model_fields)
            raise PydanticCustomError(
                "unknown_fields",
                "{count} fields; {first} is the first unknown one",
                {"count": len(data), "first": repr(str(first)[:60])},
            )
        return data


_VALUE = {"anyOf": [{"type": "string"}, {"type": "number"}]}
_VALUES = {"anyOf": [*_VALUE["anyOf"], {"type": "array", "items": _VALUE}]}
# Checked by service.live.filter_language.parse_filter, which names the condition.
FilterValue = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "title": "Filter",
            "description": "Conditions on attributes, read by the model or not; an item must meet all of them. "
            "A value: equal, or in the item's list. A list: any of these. An object: `any`, `all`, `not` of values, "
            "`gt`, `gte`, `lt`, `lte` a number or a date, `exists`, `near` a place, `same_as` the history's newest "
            "item. `and` and `or` join a list of filters, `not` reverses one. An item without the attribute meets no "
            "condition but `not` and `exists: false`.",
            "properties": {
                "and": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                "or": {"type": "array", "items": {"type": "object"}, "minItems": 1},
                "not": {"type": "object"},
            },
            "additionalProperties": {
                "anyOf": [
                    *_VALUES["anyOf"],
                    {
                        "type": "object",
                        "properties": {
                            **dict.fromkeys(("any", "all", "not"), _VALUES),
                            **dict.fromkeys(("gt", "gte", "lt", "lte"), _VALUE),
                            "exists": {"type": "boolean"},
                            "near": {
                                "type": "object",
                                "properties": {name: {"type": "number"} for name in ("lat", "lon", "km")},
                                "required": ["lat", "lon", "km"],
                                "additionalProperties": False,
                            },
                            "same_as": {"enum": ["last"]},
                        },
                        "additionalProperties": False,
                        "minProperties": 1,
                    },
                ]
            },
            "examples": [{"brand": ["Acme", "Lumen"], "price": {"gte": 10, "lt": 100}, "tags": {"all": ["gift"]}}],
        }
    ),
]
# The document has the defaults of settings; the limits themselves are checked where the work is done.
DEFAULTS: dict[str, Any] = {name: field.get_default() for name, field in Settings.model_fields.items()}
_MOST_IDS = {"maxItems": DEFAULTS["max_ids"]}
PLAIN = r"[^\x00-\x1f\x7f-\x9f]"
# Checked by check_item_id of seqrec.data.items, which counts bytes, not characters.
ITEM_ID_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": MAX_ITEM_ID_BYTES, "pattern": f"^{PLAIN}*$"}
ItemId = Annotated[
    str,
    Field(
        description=f"1 to {MAX_ITEM_ID_BYTES} bytes of UTF-8 without control characters",
        examples=["85123A"],
        json_schema_extra=ITEM_ID_SCHEMA,
    ),
]
K = Annotated[
    int,
    Field(
        ge=1,
        description="how many items to answer with; SEQREC_MAX_K is the most",
        json_schema_extra={"maximum": DEFAULTS["max_k"]},
    ),
]


class BoostBody(Body):
    """Raises or lowers the scores of items: `score * multiply + add`."""

    filter: FilterValue
    multiply: float = Field(
        default=1.0, ge=0, le=1e6, description="above 1 raises, below 1 lowers (a negative score is divided)"
    )
    add: float = Field(default=0.0, ge=-1e6, le=1e6, description="in units of the score, negative lowers")


_PIN: dict[str, Any] = {
    "allOf": [
        {
            "oneOf": [
                {"required": ["position"], "properties": {"position": {"type": "integer"}, "every": {"type": "null"}}},
                {"required": ["every"], "properties": {"every": {"type": "integer"}, "position": {"type": "null"}}},
            ]
        },
        {
            "anyOf": [
                {"required": ["item_ids"], "properties": {"item_ids": {"type": "array"}}},
                {"required": ["filter"], "properties": {"filter": {"type": "object"}}},
            ]
        },
    ]
}


class PinBody(Body):
    """Fills a place: `position` or `every`, and `item_ids` or `filter`."""

    model_config = ConfigDict(json_schema_extra=_PIN)

    position: int | None = Field(default=None, ge=1, le=10_000, description="1 is the first place")
    every: int | None = Field(default=None, ge=1, le=10_000, description="every n-th place: 5 is one place of five")
    item_ids: list[ItemId] | None = Field(
        default=None, min_length=1, max_length=1000, description="the first of these that may be answered"
    )
    filter: FilterValue | None = Field(default=None, description="the best item that passes, after those of `item_ids`")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.position is None) == (self.every is None):
            raise PydanticCustomError("pin", "give either position or every")
        if self.item_ids is None and self.filter is None:
            raise PydanticCustomError("pin", "give item_ids, a filter, or both")
        return self


class ExploreBody(Body):
    """Gives places to items with few events, so that they can earn some, or to items that are drawn at random."""

    share: float = Field(gt=0, le=1, description="of the places: 0.1 is one place of ten")
    below_events: float = Field(default=10.0, gt=0, description="an item with fewer events is new")
    random: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="instead, each place gets with the probability `share` one of so many of the best remaining items, "
        "all equally likely; `propensity` of the item says how likely it was",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.random is not None and "below_events" in self.model_fields_set:
            raise PydanticCustomError("explore", "give either below_events or random")
        return self


class RotateBody(Body):
    """Lowers items that were shown to the user, or to the session if no user is named, and not chosen since."""

    multiply: float = Field(
        gt=0, lt=1, description="the score, once for each time the item was shown (a negative score is divided)"
    )
    days: float = Field(
        default=7.0, gt=0, le=3650, description=f"how far back; at most the user's newest {MAX_EVENTS} events"
    )


class RulesBody(Body):
    """Rules of an answer. A request's own rules replace those of its placement, field by field."""

    k: K | None = Field(default=None, description="how many items to answer with; default: 10, at most SEQREC_MAX_K")
    exclude: list[ItemId] | None = Field(
        default=None,
        fail_fast=True,
        json_schema_extra=_MOST_IDS,
        description="leave out these items; an unknown id is no error",
    )
    candidates: list[ItemId] | None = Field(
        default=None,
        fail_fast=True,
        json_schema_extra=_MOST_IDS,
        description="rank these only; an unknown id is no error",
    )
    filter: FilterValue | None = None
    boost: list[BoostBody] | None = Field(
        default=None, fail_fast=True, max_length=MAX_RULES, description="change scores, over the whole catalogue"
    )
    pin: list[PinBody] | None = Field(
        default=None, fail_fast=True, max_length=MAX_RULES, description="fill places; of two pins the first counts"
    )
    diversity: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="how much difference from the items before counts against the score (maximal marginal relevance)",
    )
    at_most: dict[str, Annotated[int, Field(ge=1)]] | None = Field(
        default=None,
        max_length=8,
        description="of an attribute: how many items with the same value an answer has, over all its pages",
        examples=[{"brand": 2}],
    )
    explore: ExploreBody | None = None
    rotate: RotateBody | None = None
    min_score: float | None = Field(default=None, description="leave out items with a lower score, after boosts")
    fallback: list[Literal["similar", "trending", "popular"]] | None = Field(
        default=None,
        max_length=3,
        description="what goes on where the ranking has fewer than `k` items: words and vectors like those of the "
        "newest item, events of the last week, or of all time. Without a readable history the most popular items "
        "answer in any case",
    )

    def values(self, field: str, max_values: int) -> dict[str, Any]:
        """What was given, by the names of `service.engine.plan.Selection`. Raises InputError that names the place."""
        found: dict[str, Any] = {}
        for name in ("k", "exclude", "candidates", "diversity", "min_score"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        if self.filter:
            found["filter"] = parse_filter(self.filter, f"{field}filter", max_values)
        if self.boost is not None:
            found["boosts"] = tuple(
                Boost(parse_filter(one.filter, f"{field}boost[{i}].filter", max_values), one.add, one.multiply)
                for i, one in enumerate(self.boost)
            )
        if self.pin is not None:
            found["pins"] = tuple(self._pin(one, f"{field}pin[{i}].", max_values) for i, one in enumerate(self.pin))
        if self.at_most is not None:
            found["at_most"] = tuple(self.at_most.items())
        if self.explore is not None:
            found["explore"] = Explore(self.explore.share, self.explore.below_events, self.explore.random)
        if self.rotate is not None:
            found["rotate"] = Rotate(self.rotate.multiply, self.rotate.days)
        if self.fallback is not None:
            found["fallback"] = tuple(self.fallback)
        return found

    def _pin(self, pin: PinBody, field: str, max_values: int) -> Pin:
        ids = tuple(check_item_id(one, f"{field}item_ids[{i}]") for i, one in enumerate(pin.item_ids or ()))
        wanted = None if pin.filter is None else parse_filter(pin.filter, f"{field}filter", max_values)
        return Pin(pin.position, pin.every, ids, wanted)


class StoredRulesBody(RulesBody):
    """Rules, and how recommendations treat seen items."""

    exclude_seen: bool | None = Field(default=None, description="as in POST /recommend")

    def values(self, field: str, max_values: int) -> dict[str, Any]:
        found = super().values(field, max_values)
        return found if self.exclude_seen is None else found | {"exclude_seen": self.exclude_seen}


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="small letters, digits, . _ -", examples=["product-page"]
    ),
]


SnapshotId = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{8}T[0-9]{6}-[0-9]{6,12}-[0-9a-f]{6}$",
        description="id of a snapshot, as GET /snapshots lists it",
        examples=["20261129T110203-000124-1a2b3c"],
    ),
]


class VariantBody(Body):
    name: Name
    weight: float = Field(default=1.0, ge=0, le=1e6, description="its share of the users is weight / sum of weights")
    snapshot: SnapshotId | None = Field(
        default=None, description="which snapshot, and so which model, answers; by default the published one"
    )
    rules: StoredRulesBody = Field(
        default=StoredRulesBody(), description="replace the rules of the placement, field by field"
    )


class ExperimentBody(Body):
    """Divides users among variants of rules and models. Each keeps its variant while the name stays."""

    name: Name
    variants: list[VariantBody] = Field(
        min_length=1, max_length=10, description="the first is what reports compare the others with"
    )
    holdout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the users who get the most popular items instead"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        names = [one.name for one in self.variants]
        if len(set(names)) < len(names) or HOLDOUT in names:
            raise PydanticCustomError("variants", "variants have different names, and none is called holdout")
        if not any(one.weight for one in self.variants):
            raise PydanticCustomError("variants", "at least one variant has a weight above 0")
        return self


class ShadowBody(Body):
    """A snapshot that answers as well, unseen: how its answers differ is in /metrics and GET /reports."""

    snapshot: SnapshotId
    share: float = Field(default=0.1, gt=0, le=1, description="of the requests; fewer while the service is busy")


class PlacementBody(StoredRulesBody):
    """What a placement stores: rules, and perhaps an experiment with them, and a candidate that answers unseen."""

    experiment: ExperimentBody | None = None
    shadow: ShadowBody | None = None

    def values(self, field: str, max_values: int) -> dict[str, Any]:
        found = super().values(field, max_values)
        if self.shadow is not None:
            found["shadow"] = Shadow(self.shadow.snapshot, self.shadow.share)
        return found

    def read_experiment(self, max_values: int) -> Experiment | None:
        """Raises InputError that names the place."""
        if self.experiment is None:
            return None
        variants = [
            Variant(
                one.name,
                one.weight,
                one.rules.values(f"experiment.variants[{i}].rules.", max_values)
                | ({} if one.snapshot is None else {"snapshot": one.snapshot}),
            )
            for i, one in enumerate(self.experiment.variants)
        ]
        return Experiment(self.experiment.name, variants, self.experiment.holdout)


class PlacementRules(NamedTuple):
    """`values` by the names of `service.engine.requests.Selection`."""

    values: Mapping[str, Any]
    experiment: Experiment | None


def check_placement(body: PlacementBody, settings: Settings) -> None:
    """Raises InputError that names the field."""
    _check_unicode(body.model_dump(exclude_unset=True), "")
    variants = body.experiment.variants if body.experiment else []
    parts = [("", body), *((f"experiment.variants[{i}].rules.", one.rules) for i, one in enumerate(variants))]
    for field, one in parts:
        if one.k is not None and one.k > settings.max_k:
            raise InputError(f"from 1 to {settings.max_k}, not {one.k}", f"{field}k")
        for name, ids in (("exclude", one.exclude), ("candidates", one.candidates)):
            if ids is not None and len(ids) > settings.max_ids:
                raise InputError(f"at most {settings.max_ids} ids, not {len(ids)}", f"{field}{name}")
    body.values("", MAX_FILTER_VALUES)
    body.read_experiment(MAX_FILTER_VALUES)


def _check_unicode(value: Any, field: str) -> None:
    """Raises InputError for text that no store can keep."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_unicode(name, field)
            _check_unicode(part, f"{field}.{name}" if field else name)
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            _check_unicode(part, f"{field}[{number}]")
    elif isinstance(value, str) and not is_unicode(value):
        raise InputError("not valid Unicode (a lone surrogate)", field)


def placement_rules(rules: str) -> PlacementRules:
    """What a placement stores. Raises InputError."""
    # By the minute, since a relative date such as "now-30d" is as of the moment it is parsed.
    return _placement_rules(rules, int(time.time() // 60))


@lru_cache(maxsize=256)
def _placement_rules(rules: str, minute: int) -> PlacementRules:
    try:
        body = PlacementBody.model_validate_json(rules)
        return PlacementRules(body.values("", MAX_FILTER_VALUES), body.read_experiment(MAX_FILTER_VALUES))
    except ValidationError as error:
        first = error.errors()[0]
        later = ". A later version stored them: run the same version on all hosts"
        raise InputError(
            f"the stored rules cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            f"{later if first['type'] == 'extra_forbidden' else ''}",
            "placement",
        ) from None
