"""Attributes of items as features of models that know items by id. An attribute is a field: a bag of tags.

Fields are RecBole's: the tags of a string are its words (`token_seq` there), or the whole string if the name ends with
`:token`; the tags of a list are its entries. The same word in two fields is two tags. The tags of training items are
stored in the checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqrec.data.items import AttributeValue, Item, attribute_text
from seqrec.errors import InputError
from seqrec.models.base.ids import IdModel, VocabSizes

WHOLE = ":token"
COMMON_FEATURES = "title,brand:token,category,genres"
"""The usual attributes of public data sets. Those that no item has are ignored."""


@dataclass(frozen=True)
class KnownFeatures(VocabSizes):
    """The numbers of `fields` per item, of `tags` of all items together, and of distinct tags (`vocabulary`)."""

    fields: int = 0
    tags: int = 0
    vocabulary: int = 0


class ItemFeatures(nn.Module):
    """The tags of each item. `tags`: int32 [t], all fields of an item, then the next item; `begins`: int64 [bags + 1].

    The padding row after the last item has no tags.
    """

    def __init__(self, known: KnownFeatures) -> None:
        super().__init__()
        self.fields, self.vocabulary = known.fields, known.vocabulary
        self.tags: Tensor
        self.begins: Tensor
        self.register_buffer("tags", torch.zeros(known.tags, dtype=torch.int32))
        self.register_buffer("begins", torch.zeros((known.items + 1) * known.fields + 1, dtype=torch.int64))

    def bags(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of items [m] -> the tags int64 [t] of all their fields, and the start of each bag int64 [m * fields]."""
        bags = (rows[:, None] * self.fields + torch.arange(self.fields, device=rows.device)).view(-1)
        begins, lengths = self.begins[bags], self.begins[bags + 1] - self.begins[bags]
        here = lengths.cumsum(0) - lengths
        places = torch.arange(int(lengths.sum()), device=rows.device)
        return self.tags[places + (begins - here).repeat_interleave(lengths)].long(), here

    def means(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Rows of items [m], vectors of tags [vocabulary, d] -> [m, fields, d], 0 for a field without tags."""
        tags, begins = self.bags(rows)
        means = F.embedding_bag(tags, vectors, begins, mode="mean")
        return means.view(len(rows), self.fields, -1)

    def multi_hot(self, rows: Tensor) -> Tensor:
        """Rows of items [m] -> float [m, vocabulary]: 1 where the item has the tag."""
        tags, begins = self.bags(rows)
        bag_of = torch.bucketize(torch.arange(len(tags), device=rows.device), begins, right=True) - 1
        has = torch.zeros(len(rows), self.vocabulary, device=rows.device)
        has[bag_of // self.fields, tags] = 1
        return has


class FeatureModel(IdModel):
    """Base of the models that know items by id and also read attributes, which `settings.features` lists."""

    known_class: ClassVar[type[VocabSizes]] = KnownFeatures
    known: KnownFeatures

    def __init__(self, settings: Any, known: VocabSizes) -> None:
        super().__init__(settings, known)
        assert isinstance(known, KnownFeatures)
        self.features = ItemFeatures(known)

    @classmethod
    def from_items(cls, settings: Any, items: Sequence[Item], user_ids: Sequence[str]) -> Self:
        """A model with fresh weights. Raises InputError if no item has any of the attributes."""
        names = feature_names(settings.features)
        fields = [name for name in names if any(name.removesuffix(WHOLE) in item.attributes for item in items)]
        if not fields:
            raise InputError(
                f"no item has any of {settings.features}; list attributes of your items", "model.settings.features"
            )
        numbers: dict[tuple[str, str], int] = {}
        tags: list[int] = []
        begins = [0]
        for item in items:
            for field in fields:
                tags += [numbers.setdefault((field, tag), len(numbers)) for tag in field_tags(field, item.attributes)]
                begins.append(len(tags))
        begins += [len(tags)] * len(fields)
        sizes = {"fields": len(fields), "tags": len(tags), "vocabulary": len(numbers)}
        model = cls.from_ids(settings, [item.item_id for item in items], user_ids, **sizes)
        model.features.tags.copy_(torch.tensor(tags, dtype=torch.int32))
        model.features.begins.copy_(torch.tensor(begins))
        return model


def feature_names(features: str) -> list[str]:
    """The fields that a setting lists. Raises InputError if it is empty."""
    names = [name.strip() for name in features.split(",") if name.strip()]
    if not names:
        raise InputError(f"list the attributes to read, such as {COMMON_FEATURES!r}", "model.settings.features")
    return names


def field_tags(field: str, attributes: Mapping[str, AttributeValue]) -> Iterable[str]:
    """The distinct tags, in order."""
    value = attributes.get(field.removesuffix(WHOLE), "")
    if not isinstance(value, str | int | float):
        return dict.fromkeys(entry for entry in value if entry.strip())
    text = attribute_text(value)
    if field.endswith(WHOLE):
        return [text] if text.strip() else []
    return dict.fromkeys(re.findall(r"\w+", text.lower()))
