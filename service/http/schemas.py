"""The bodies of HTTP requests and responses. Limits that are settings are checked where the work is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from seqrec.data.items import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES
from service.rules.body import DEFAULTS, ITEM_ID_SCHEMA, PLAIN, Body, ItemId, Name, PlacementBody, RulesBody, SnapshotId

MAX_SEQ = 2**53 - 1
"""More than a log can reach, and the largest whole number that every JSON reader has exactly."""
WINDOW = "^[0-9]{1,9}[smhdw]$"

# Checked by check_user_id of seqrec.data.items, which counts bytes, not characters.
_NO_BLANK = PLAIN.replace("[^", r"[^\s")
_USER_ID = {**ITEM_ID_SCHEMA, "pattern": f"^{_NO_BLANK}({PLAIN}*{_NO_BLANK})?$"}
_NULL, _STRING = {"type": "null"}, {"type": "string"}
_HISTORY_OR_USER: dict[str, Any] = {
    "anyOf": [
        {"required": ["history"], "properties": {"history": {"type": "array"}}},
        {"required": ["user_id"], "properties": {"user_id": _STRING}},
        {"required": ["context"], "properties": {"context": {"type": "object"}}},
    ]
}
_ONE_OF_TWO: dict[str, Any] = {
    "oneOf": [
        {"required": ["item_id"], "properties": {"item_id": _STRING, "attributes": _NULL}},
        {"required": ["attributes"], "properties": {"attributes": {"type": "object"}, "item_id": _NULL}},
    ]
}


# Checked by seqrec.data.items.check_attributes, which names the attribute; pydantic would list every possible type.
Attributes = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "title": "Attributes",
            "description": "Strings, numbers or lists of strings by name; null means absent. "
            f"At most {MAX_ATTRIBUTES}, each at most {MAX_ATTRIBUTE_BYTES} bytes with its name.",
            "maxProperties": MAX_ATTRIBUTES,
            "propertyNames": {"minLength": 1},
            "additionalProperties": {
                "anyOf": [
                    {"type": "string", "maxLength": MAX_ATTRIBUTE_BYTES},
                    {"type": "number"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "null"},
                ]
            },
            "examples": [{"title": "Oak desk", "brand": "Acme"}],
        }
    ),
]
UserId = Annotated[
    str,
    Field(
        description="1 to 256 bytes of UTF-8 without control characters, no blank at either end",
        examples=["customer-17850"],
        json_schema_extra=_USER_ID,
    ),
]
Fields = Annotated[
    list[str],
    Field(
        max_length=MAX_ATTRIBUTES,
        fail_fast=True,
        description="names of the attributes that the answer contains of each item, in this order; none for []; "
        "by default all. A name that no item has is listed in `degraded`",
        examples=[["title", "price"]],
    ),
]
Cursor = Annotated[str, Field(min_length=1, max_length=262_144)]
ItemPath = Annotated[str, InPath(description="may contain slashes, plain or encoded", json_schema_extra=ITEM_ID_SCHEMA)]
UserPath = Annotated[str, InPath(description="may contain slashes, plain or encoded", json_schema_extra=_USER_ID)]
MinSeq = Annotated[
    int,
    Field(
        ge=0, le=MAX_SEQ, description="answer from a state that includes every change up to this number, or with 503"
    ),
]


class PlainItem(Body):
    """An item that is not in the catalogue and is represented by its attributes."""

    attributes: Attributes


def _entry_tag(value: object) -> str | None:
    if isinstance(value, str):
        return "<id>"
    return "<attributes>" if isinstance(value, dict | PlainItem) else None


HistoryEntry = Annotated[
    Annotated[ItemId, Tag("<id>")] | Annotated[PlainItem, Tag("<attributes>")],
    Discriminator(
        _entry_tag,
        custom_error_type="history_entry",
        custom_error_message='an entry is an item id or {"attributes": {...}}',
    ),
]


class ContextBody(Body):
    """What the user is doing now. It is read after the history, as its newest items, and is not stored."""

    item_id: ItemId | None = Field(default=None, description="the item that is being looked at: the newest of all")
    cart: list[ItemId] = Field(default=[], fail_fast=True, description="oldest first")


class QuestionBody(RulesBody):
    """Rules of its own, or those of a placement, or both: then its own ones replace those of the placement."""

    placement: Name | None = None
    snapshot: SnapshotId | None = Field(
        default=None,
        description="which snapshot answers, such as to compare two models: the published one, or one that a placement "
        "names. Others get 422. It replaces that of a variant",
    )
    session_id: UserId | None = Field(
        default=None,
        description="who gets a variant of the placement's experiment, where there is no `user_id`; not stored",
    )
    paginate: bool = Field(default=False, description="answer with `next`, a cursor to the following page, too")
    fields: Fields | None = None
    cursor: Cursor | None = Field(
        default=None,
        description="`next` of the page before, with the same request: no item is on two pages, and what can be "
        "recommended and was on none comes, while items and events come and go",
    )


class RecommendBody(QuestionBody):
    """A history, and which items to return. At least one of `history`, `user_id` and `context` is required."""

    model_config = ConfigDict(json_schema_extra=_HISTORY_OR_USER)

    history: list[HistoryEntry] | None = Field(
        default=None,
        fail_fast=True,
        json_schema_extra={"maxItems": DEFAULTS["max_history"]},
        description="oldest first; item ids, or attributes of items that are not in the catalogue. If it is empty, the "
        "most popular items are returned",
        examples=[["85123A", {"attributes": {"title": "Red retrospot cake stand"}}]],
    )
    user_id: UserId | None = Field(
        default=None, description="the user's stored history precedes `history`; that of an unknown user is empty"
    )
    context: ContextBody | None = None
    exclude_seen: bool | None = Field(
        default=None,
        description="exclude items in the history and in the user's stored events. The default depends on the "
        "model: a hybrid may recommend seen items if its training data has repeats; other models exclude them",
    )
    explain: bool = Field(
        default=False, description="explain each item: `because` lists the items of the history that led to it"
    )
    min_seq: MinSeq = 0


class BatchBody(Body):
    """Several requests, which are answered from the same state."""

    requests: list[RecommendBody] = Field(
        min_length=1, fail_fast=True, json_schema_extra={"maxItems": DEFAULTS["max_batch"]}
    )


# Checked by parse_window of the route, which names what it may be.
Window = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": WINDOW}],
            "title": "Window",
            "description": "seconds before now, or a number of s, m, h, d or w; without it: all events",
            "examples": ["7d", 3600],
        }
    ),
]


class PopularBody(QuestionBody):
    """Which items have most events, among all or those of a window of time."""

    window: Window = None
    user_id: UserId | None = Field(default=None, description="whose items `exclude_seen` leaves out")
    exclude_seen: bool | None = Field(
        default=None, description="leave out all that the user ever had. By default as for a recommendation"
    )
    min_seq: MinSeq = 0


class SimilarBody(QuestionBody):
    """Either `item_id` of an item in the catalogue, or `attributes` of any item."""

    model_config = ConfigDict(json_schema_extra=_ONE_OF_TWO)

    item_id: ItemId | None = None
    attributes: Attributes | None = None
    min_seq: MinSeq = 0


class PostedItem(Body):
    item_id: ItemId
    attributes: Attributes
    available: bool = Field(default=True, description="false: never returned; it still counts in histories")


class ItemsBody(Body):
    items: list[PostedItem] = Field(min_length=1, fail_fast=True, json_schema_extra={"maxItems": DEFAULTS["max_items"]})


class PatchBody(Body):
    """What changes of an item, as a JSON merge patch (RFC 7396). What is not named stays."""

    attributes: Attributes = Field(default={}, description="new values by name; null removes an attribute")
    available: bool | None = Field(default=None, description="false hides the item from answers; null: as it is")


class PatchedItem(PatchBody):
    item_id: ItemId


class PatchesBody(Body):
    items: list[PatchedItem] = Field(min_length=1, fail_fast=True)


class Answer(BaseModel):
    """Base of response bodies."""

    model_config = ConfigDict(frozen=True)


class ItemView(Answer):
    item_id: str
    attributes: Attributes


class ScoredItem(ItemView):
    score: float = Field(description="higher is better; comparable only within one answer")


class ReasonView(Answer):
    item_id: str = Field(description="an item of the history")
    similarity: float | None = Field(
        default=None,
        description="cosine similarity of the two items' vectors, -1 to 1; not part of the model's score. Absent for "
        "a hybrid model",
    )
    part: Literal["co-occurrence", "words"] | None = Field(
        default=None, description="the part of a hybrid's score: what users choose after this item, or words in common"
    )
    score: float | None = Field(default=None, description="the contribution of this item to that part of the score")


class PlacedItem(ScoredItem):
    source: Literal["model", "similar", "trending", "popular"] | None = Field(
        default=None, description="what found it, where rules apply"
    )
    pinned: bool | None = Field(default=None, description="true: by a pin")
    explored: bool | None = Field(default=None, description="true: by `explore`")
    propensity: float | None = Field(
        default=None, description="of a place that `explore` filled at random: how likely it was to get this item"
    )


class RecommendedItem(PlacedItem):
    because: list[ReasonView] = Field(
        default_factory=list,  # pydantic would make a deep copy of a default for every item
        json_schema_extra={"default": []},
        description="only with `explain`: the three items of the history that contribute most to a hybrid's score; for "
        "other models, the three most similar ones. Empty if no item of the history is in the catalogue",
    )
    parts: dict[str, float] | None = Field(
        default=None, description="only with `explain`: the parts of a hybrid's score, which sum to it"
    )


class StateView(Answer):
    """The state that an answer is based on."""

    metric: Literal["cosine", "dot", "l2"] = Field(description="how vectors are compared")
    model: str = Field(description="digest of the checkpoint")
    snapshot: str
    seq: int = Field(description="the answer includes every change of the catalogue up to this number")
    recommendation_id: str = Field(
        description="signed; to be sent with events of what becomes of the items, so that reports count them"
    )
    experiment: str | None = Field(
        default=None, description="of the placement, if the user or session of the request is in it; otherwise absent"
    )
    variant: str | None = Field(
        default=None, description="of the experiment; `holdout`: the most popular items answer instead"
    )


class RecommendAnswer(StateView):
    items: list[RecommendedItem] = Field(description="best first")
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")
    source: Literal["model", "fallback:popular"] = Field(
        description="`fallback:popular`: the model can read nothing of the history, so the most popular items are "
        "returned, scored by popularity"
    )
    unknown: list[str] = Field(
        description="skipped item ids of the history: not in the catalogue, or unknown to a model of item ids"
    )
    degraded: list[str] = Field(
        default=[],
        description="what could not be taken into account, such as a stored history that cannot be read, an attribute "
        "of `filter` or `fields` that no item has, and attributes beyond SEQREC_MAX_ANSWER_BYTES",
    )


class BatchAnswer(Answer):
    answers: list[RecommendAnswer] = Field(description="in the order of the requests")


class SimilarAnswer(StateView):
    items: list[PlacedItem] = Field(description="best first")
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")
    degraded: list[str] = Field(
        default=[], description="what was not taken into account, such as a filter on an attribute that no item has"
    )


class PopularAnswer(StateView):
    items: list[PlacedItem] = Field(
        description="most events first, equal numbers by item id; `score` is the number, decayed where the model has a "
        "half-life and no window is given. Items without events are left out"
    )
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")
    since: float | None = Field(default=None, description="Unix seconds: where the window begins")
    degraded: list[str] = Field(
        default=[], description="what could not be taken into account, such as a stored history that cannot be read"
    )


class PutAnswer(Answer):
    seq: int = Field(description="the number of the last change")
    created: int
    updated: int
    searchable: bool = Field(description="whether the next request can return all of these items")
    not_searchable: list[str] | None = Field(
        default=None,
        description="ids of items that are stored but never returned; absent if there are none",
    )
    detail: str | None = Field(default=None, description="why they are not searchable")


class StoredPlacement(Answer):
    name: str
    version: int = Field(description="the number of the change that stored it")
    rules: PlacementBody


class Placements(Answer):
    placements: list[StoredPlacement] = Field(description="by name")


class PatchAnswer(Answer):
    seq: int = Field(description="the number of the last change")
    updated: int
    unchanged: int = Field(description="items that were as the patch would make them")


class DeleteAnswer(Answer):
    seq: int


class StoredItem(ItemView):
    available: bool
    seq: int = Field(description="the number of the item's last change")
    searchable: bool = Field(description="whether answers may contain it now")


class FoundItem(ItemView):
    available: bool = Field(description="false: never returned by recommendations")


class FoundItems(Answer):
    items: list[FoundItem] = Field(description="best match first; of pages, those with most events")
    degraded: list[str] = Field(default=[], description="as in the answer of POST /recommend")
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")


class Problem(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    advice: str
    errors: list[dict[str, str]] | None = None
