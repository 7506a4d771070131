"""The HTTP bodies: what is read and what is answered. Limits that are settings are checked where the work is done."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from seqrec.data.items import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES
from service.engine.rule_body import Body, ItemId, PlacementBody, RulesBody

MAX_SEQ = 2**63 - 1
"""The largest sequence number that a log can reach."""

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
UserId = Annotated[
    str, Field(description="1 to 256 bytes of UTF-8 without control characters", examples=["customer-17850"])
]
PlacementName = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="small letters, digits, . _ -", examples=["product-page"]
    ),
]
Cursor = Annotated[str, Field(min_length=1, max_length=262_144)]
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


class ContextBody(Body):
    """What the user is doing now. It is read after the history, as its newest items, and is not stored."""

    item_id: ItemId | None = Field(default=None, description="the item that is being looked at: the newest of all")
    cart: list[ItemId] = Field(default=[], fail_fast=True, description="oldest first")


class QuestionBody(RulesBody):
    """Rules of its own, or those of a placement, or both: then its own ones replace those of the placement."""

    placement: PlacementName | None = None
    paginate: bool = Field(default=False, description="answer with `next`, a cursor to the following page, too")
    cursor: Cursor | None = Field(
        default=None,
        description="`next` of the page before, with the same request: no item is on two pages, and what can be "
        "recommended and was on none comes, while items and events come and go",
    )


class RecommendBody(QuestionBody):
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
    context: ContextBody | None = None
    exclude_seen: bool | None = Field(
        default=None,
        description="leave out the items whose ids are in the history, and all that the user ever had. By default the "
        "model decides: a hybrid may recommend seen items where its training data has repeats, others leave them out",
    )
    explain: bool = Field(
        default=False, description="tell with each item which items of the history it is most like: `because`"
    )
    min_seq: MinSeq = 0


class BatchBody(Body):
    """Several requests, answered from one state."""

    requests: list[RecommendBody] = Field(min_length=1, fail_fast=True)


class SimilarBody(QuestionBody):
    """An item of the catalogue, or the attributes of one that need not be in it: one of the two."""

    item_id: ItemId | None = None
    attributes: Attributes | None = None
    min_seq: MinSeq = 0


class PostedItem(Body):
    item_id: ItemId
    attributes: Attributes
    available: bool = Field(default=True, description="false hides the item from answers; it still counts in histories")


class ItemsBody(Body):
    items: list[PostedItem] = Field(min_length=1, fail_fast=True)


class PostedEvent(Body):
    user_id: UserId
    item_id: ItemId
    timestamp: float | None = Field(default=None, description="Unix seconds; default: now")
    event_id: ItemId | None = Field(
        default=None, description="of your own choice: an event of this user with the same id is stored once"
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


class PlacedItem(ScoredItem):
    source: Literal["model", "similar", "popular"] | None = Field(
        default=None, description="what found it, where rules apply"
    )
    pinned: bool | None = Field(default=None, description="true: by a pin")
    explored: bool | None = Field(default=None, description="true: by `explore`")


class RecommendedItem(PlacedItem):
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
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")
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
    items: list[PlacedItem] = Field(description="best first")
    next: str | None = Field(default=None, description="cursor of the next page, if asked for and there may be one")
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


class StoredPlacement(Answer):
    name: str
    version: int = Field(description="the number of the change that stored it")
    rules: PlacementBody


class Placements(Answer):
    placements: list[StoredPlacement] = Field(description="by name")


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
