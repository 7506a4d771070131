"""The HTTP bodies: what is read and what is answered. Limits that are settings are checked where the work is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from seqrec.data.items import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, MAX_ITEM_ID_BYTES, MAX_TYPE_BYTES

MAX_UNKNOWN_FIELDS = 20
MAX_SEQ = 2**63 - 1
"""The largest sequence number that a log can reach."""


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


# Checked by seqrec.data.items.check_attributes, which names the attribute; pydantic would name each type it is not.
Attributes = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "title": "Attributes",
            "description": "Strings, numbers or lists of strings by name; null is as good as absent. "
            f"At most {MAX_ATTRIBUTES}, each at most {MAX_ATTRIBUTE_BYTES} bytes with its name.",
            "additionalProperties": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "number"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "null"},
                ]
            },
            "examples": [{"title": "Oak desk", "brand": "Acme"}],
        }
    ),
]
_VALUE = {"anyOf": [{"type": "string"}, {"type": "number"}]}
_VALUES = {"anyOf": [*_VALUE["anyOf"], {"type": "array", "items": _VALUE}]}
# Checked by service.live.filters.parse_filter, which names the condition.
FilterValue = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "title": "Filter",
            "description": "Conditions on attributes, read by the model or not; an item must meet all of them. "
            "A value: equal, or in the item's list. A list: any of these. An object: `any`, `all`, `not` of values, "
            "`gt`, `gte`, `lt`, `lte` a number. An item without the attribute meets no condition but `not`.",
            "additionalProperties": {
                "anyOf": [
                    *_VALUES["anyOf"],
                    {
                        "type": "object",
                        "properties": {
                            **dict.fromkeys(("any", "all", "not"), _VALUES),
                            **{word: {"type": "number"} for word in ("gt", "gte", "lt", "lte")},
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
UserId = Annotated[
    str, Field(description="1 to 256 bytes of UTF-8 without control characters", examples=["customer-17850"])
]
ItemId = Annotated[
    str, Field(description=f"1 to {MAX_ITEM_ID_BYTES} bytes of UTF-8 without control characters", examples=["85123A"])
]
EventTypeName = Annotated[
    str, Field(description=f"1 to {MAX_TYPE_BYTES} bytes of UTF-8 without control characters", examples=["view"])
]
K = Annotated[int, Field(ge=1, description="how many items to answer with; SEQREC_MAX_K is the most")]
MinSeq = Annotated[
    int,
    Field(ge=0, le=MAX_SEQ, description="answer from a state that has every change up to this one; else 503"),
]


class PlainItem(Body):
    """An item that is in no catalogue: it counts by its text."""

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


class RecommendBody(Body):
    """A history, oldest first, and how to answer it. At least one of `history` and `user_id`."""

    history: list[HistoryEntry] | None = Field(
        default=None,
        fail_fast=True,
        description="oldest first; ids, or attributes of items in no catalogue. Empty: the most popular items",
        examples=[["85123A", {"attributes": {"title": "Red retrospot cake stand"}}]],
    )
    user_id: UserId | None = Field(
        default=None, description="the user's stored history comes first, then `history`; an unknown user has none"
    )
    k: K = 10
    exclude_seen: bool | None = Field(
        default=None,
        description="leave out the items whose ids are in the history, and all that the user ever had. By default the "
        "model decides: a hybrid may recommend seen items where its training data has repeats, others leave them out",
    )
    exclude: list[ItemId] = Field(
        default=[], fail_fast=True, description="leave out these items; an unknown id is no error"
    )
    candidates: list[ItemId] | None = Field(
        default=None, fail_fast=True, description="rank these only; an unknown id is no error"
    )
    filter: FilterValue | None = None
    explain: bool = Field(
        default=False, description="tell with each item which items of the history it is most like: `because`"
    )
    min_seq: MinSeq = 0


class BatchBody(Body):
    """Several requests, answered from one state."""

    requests: list[RecommendBody] = Field(min_length=1, fail_fast=True)


class SimilarBody(Body):
    """An item of the catalogue, or the attributes of one that need not be in it: one of the two."""

    item_id: ItemId | None = None
    attributes: Attributes | None = None
    k: K = 10
    filter: FilterValue | None = None
    min_seq: MinSeq = 0


class PostedItem(Body):
    item_id: ItemId
    attributes: Attributes
    available: bool = Field(default=True, description="false hides the item from answers; it still counts in histories")


class ItemsBody(Body):
    items: list[PostedItem] = Field(min_length=1, fail_fast=True)


class PatchBody(Body):
    """What changes of an item, as a JSON merge patch (RFC 7396). What is not named stays."""

    attributes: Attributes = Field(default={}, description="new values by name; null removes an attribute")
    available: bool | None = Field(default=None, description="false hides the item from answers; null: as it is")


class PatchedItem(PatchBody):
    item_id: ItemId


class PatchesBody(Body):
    items: list[PatchedItem] = Field(min_length=1, fail_fast=True)


class PostedEvent(Body):
    user_id: UserId
    item_id: ItemId
    timestamp: float | None = Field(default=None, description="Unix seconds; default: now")
    event_id: ItemId | None = Field(
        default=None, description="of your own choice: an event of this user with the same id is stored once"
    )
    type: EventTypeName | None = Field(
        default=None, description="what the user did; `seqrec events types` sets which types count, and how much"
    )
    value: float | None = Field(
        default=None, description="a number of your own, such as a price; stored and given back"
    )


class EventsBody(Body):
    events: list[PostedEvent] = Field(min_length=1, fail_fast=True, description="SEQREC_MAX_ITEMS is the most")


class Answer(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(frozen=True)


class ItemView(Answer):
    item_id: str
    attributes: Attributes


class ScoredItem(ItemView):
    score: float = Field(description="compares items within one answer, nothing else; higher is better")


class ReasonView(Answer):
    item_id: str = Field(description="of the history")
    similarity: float | None = Field(
        default=None,
        description="cosine of the two items' vectors, -1 to 1: how alike they are, not what the model computed; "
        "not of a hybrid model",
    )
    part: Literal["co-occurrence", "words"] | None = Field(
        default=None, description="of a hybrid's score: what people do after this item, or words in common with it"
    )
    score: float | None = Field(default=None, description="what this item adds to the score by that part")


class RecommendedItem(ScoredItem):
    because: list[ReasonView] = Field(
        default=[],
        description="the three items of the history that add most to a hybrid's score, or of another model the most "
        "similar ones; only with `explain`. Empty where no item of the history is in the catalogue",
    )
    parts: dict[str, float] | None = Field(
        default=None, description="the parts of a hybrid's score, which sum to it; only with `explain`"
    )


class StateView(Answer):
    """Which state answered."""

    metric: Literal["cosine", "dot", "l2"] = Field(description="how vectors were compared")
    model: str = Field(description="digest of the checkpoint")
    snapshot: str
    seq: int = Field(description="every change of the catalogue up to this one was searched")


class RecommendAnswer(StateView):
    items: list[RecommendedItem] = Field(description="best first")
    source: Literal["model", "fallback:popular"] = Field(
        description="`fallback:popular`: the history says nothing; most popular items, scored by popularity"
    )
    unknown: list[str] = Field(
        description="ids of the histories that are in no catalogue, or not known to a model of ids; they were skipped"
    )
    degraded: list[str] = Field(
        default=[], description="what could not be taken into account, such as a stored history that cannot be read"
    )


class BatchAnswer(Answer):
    answers: list[RecommendAnswer] = Field(description="in the order of the requests")


class SimilarAnswer(StateView):
    items: list[ScoredItem] = Field(description="best first")
    degraded: list[str] = Field(
        default=[], description="what could not be taken into account, such as a filter on an attribute of no item"
    )


class PutAnswer(Answer):
    seq: int = Field(description="the number of the last change")
    created: int
    updated: int
    searchable: bool = Field(description="the next request finds them; false where that is not so of all of them")
    not_searchable: list[str] | None = Field(
        default=None,
        description="ids of those that are stored, but not found by any request; absent where there is none",
    )
    detail: str | None = Field(default=None, description="why they are not searchable")


class PatchAnswer(Answer):
    seq: int = Field(description="the number of the last change")
    updated: int
    unchanged: int = Field(description="items that were as the patch would make them")


class DeleteAnswer(Answer):
    seq: int


class StoredItem(ItemView):
    available: bool
    seq: int = Field(description="the number of the item's last change")
    searchable: bool = Field(description="whether answers may hold it now")


class FoundItem(ItemView):
    available: bool = Field(description="false: hidden from answers")


class FoundItems(Answer):
    items: list[FoundItem] = Field(description="best match first")


class EventsAnswer(Answer):
    stored: int = Field(description="events that are new")
    known: int = Field(description="events whose `event_id` was there already")
    unknown: list[str] = Field(
        description="item ids that are in no catalogue now, or that the model does not know; their events are stored "
        "all the same"
    )


class UserEvent(Answer):
    item_id: str
    timestamp: float
    event_id: str | None = None
    type: str | None = None
    value: float | None = None


class UserAnswer(Answer):
    user_id: str
    events: list[UserEvent] = Field(description="newest first; all that are stored, of any type")
    next: str | None = Field(default=None, description="the `cursor` that the next page begins at; absent on the last")


class RemoveEventAnswer(Answer):
    removed: bool = Field(description="false: there was no event of this id")


class DeleteUserAnswer(Answer):
    deleted: int = Field(description="events that were removed")


class JobView(Answer):
    """A reindex job. `done` and `total` count items."""

    id: str
    state: Literal["queued", "running", "done", "failed"]
    done: int = 0
    total: int | None = None
    snapshot: str | None = Field(default=None, description="what it made and published")
    error: str | None = None


class Health(Answer):
    status: Literal["alive", "dead"]
    detail: str | None = None


class Readiness(Answer):
    status: Literal["ready", "not ready"]
    detail: str | None = Field(default=None, description="why it is not ready, or the first of `degraded`")
    degraded: list[str] = Field(default=[], description="what is wrong while answers go on")
    promises: Literal["full", "weaker"] | None = Field(
        default=None, description="`full`: what is acknowledged is durable; `weaker`: SEQREC_ACCEPT_WEAKER allowed less"
    )
    durability_warnings: list[str] = Field(default=[], description="what is not promised")
    catalogue: str | None = None
    snapshot: str | None = None
    seq: int | None = None
    head: int | None = Field(default=None, description="the catalogue's last change that was seen")
    worker: int = Field(description="the process that answered; it is in the header x-worker of every answer")


class Problem(Answer):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    advice: str
    errors: list[dict[str, str]] | None = None
