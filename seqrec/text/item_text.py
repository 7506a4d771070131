"""Item text: which attributes are read in which order, where they are cut, and their token ids. The only place for it.

An item is flattened to name1 value1 name2 value2 ..., where names and values are tokenized separately and concatenated
without separators (Recformer, section 2.1, and the authors' tokenizer). Each attribute is cut to `max_attr_length`
tokens, name and value together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from seqrec.data.items import AttributeValue, Item, attribute_text, has_visible_text
from seqrec.errors import InputError

NAME, VALUE = 1, 2
"""Token types of an attribute's name and of its value (0 is [CLS])."""

KNOWN = 4
"""Token type of an item that the model knows by id: the token is its row in the model's tables (`ItemIds`)."""

TERM = 5
"""Token type of a term of the text: the token is its number in the vocabulary of terms (`Hybrid`)."""


class TokenizedItem(NamedTuple):
    """The tokens of an item: ids int32 [t], types uint8 [t] (1 name, 2 value, 4 known item, 5 term); t may be 0."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8]


def has_model_input(item: TokenizedItem) -> bool:
    """Whether a model reads anything of the item except attribute names: its text, or its id if the model knows it."""
    return bool((item.types != NAME).any())


def same_tokens(one: TokenizedItem, other: TokenizedItem) -> bool:
    """Whether a model reads the same of both, so that they have the same vector."""
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.types, other.types)


class TokenizedHistory(NamedTuple):
    """The tokens of a history: items, oldest first, and the user id if it is known."""

    items: Sequence[TokenizedItem]
    user_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ItemTokens(Sequence[TokenizedItem]):
    """Concatenated tokens of n items: ids int32 [t], types uint8 [t], offsets int64 [n + 1]; may be memory-mapped."""

    ids: npt.NDArray[np.int32]
    types: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> TokenizedItem: ...
    @overload
    def __getitem__(self, row: slice) -> ItemTokens: ...
    def __getitem__(self, row: int | slice) -> TokenizedItem | ItemTokens:
        if isinstance(row, slice):
            return ItemTokens.concatenate([self[i] for i in range(*row.indices(len(self)))])
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        begin, end = self.offsets[row], self.offsets[row + 1]
        return TokenizedItem(self.ids[begin:end], self.types[begin:end])

    def __iter__(self) -> Iterator[TokenizedItem]:
        bounds = self.offsets.tolist()
        for begin, end in pairwise(bounds):
            yield TokenizedItem(self.ids[begin:end], self.types[begin:end])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each item, [n]."""
        return np.diff(self.offsets)

    @classmethod
    def concatenate(cls, items: Iterable[TokenizedItem]) -> ItemTokens:
        parts = list(items)
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part.ids) for part in parts], out=offsets[1:])
        if not parts:
            return cls(np.zeros(0, np.int32), np.zeros(0, np.uint8), offsets)
        ids = np.concatenate([part.ids for part in parts]).astype(np.int32, copy=False)
        types = np.concatenate([part.types for part in parts]).astype(np.uint8, copy=False)
        return cls(ids, types, offsets)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an item becomes text. Stored in the checkpoint, since vectors of different recipes are not comparable."""

    attributes: tuple[str, ...] | None
    """The attributes to read, in this order; None: all of an item, in its order (as in the authors' code)."""
    max_attr_num: int = 3
    max_attr_length: int = 32
    parse_special_tokens: bool = False
    """Whether `<mask>` and the like in a text become special tokens. Only for imported checkpoints, since the authors'
    code does it; elsewhere the text of an item must not be able to produce special tokens."""

    def __post_init__(self) -> None:
        if self.attributes is not None and not self.attributes:
            raise InputError("list at least one attribute to read", "attributes")
        if self.max_attr_num < 1 or self.max_attr_length < 1:
            raise InputError("max_attr_num and max_attr_length must be at least 1")

    def texts(self, attributes: Mapping[str, AttributeValue]) -> list[tuple[str, str]]:
        """Name and value of each attribute to read, in order, without those that the item lacks."""
        names = attributes.keys() if self.attributes is None else [n for n in self.attributes if n in attributes]
        return [(name, attribute_text(attributes[name])) for name in list(names)[: self.max_attr_num]]

    def to_json(self) -> str:
        return json.dumps({"format": 1} | asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        fields = json.loads(text)
        if fields.pop("format", None) != 1:
            raise InputError("this version cannot read the format of this item-text recipe", "format")
        if fields["attributes"] is not None:
            fields["attributes"] = tuple(fields["attributes"])
        return cls(**fields)


class ItemText:
    """Turns items into token ids by a recipe and a tokenizer. Thread-safe."""

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer) -> None:
        """`tokenizer` is used without its special tokens, post-processing, padding and truncation."""
        self.recipe = recipe
        plain = json.loads(tokenizer.to_str())
        plain.update(added_tokens=[], post_processor=None, padding=None, truncation=None)
        self.tokenizer_json = json.dumps(plain, ensure_ascii=False, sort_keys=True)
        self._tokenizer = Tokenizer.from_str(self.tokenizer_json)
        if recipe.parse_special_tokens:
            known = [
                token for token in ("<s>", "<pad>", "</s>", "<unk>") if self._tokenizer.token_to_id(token) is not None
            ]
            self._tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in known])
            if self._tokenizer.token_to_id("<mask>") is not None:
                # RoBERTa's <mask> includes the space before it.
                self._tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
        self.names: dict[str, npt.NDArray[np.int32]] = {}

    @property
    def digest(self) -> str:
        """sha256 of recipe and tokenizer: equal digests mean equal token ids."""
        return hashlib.sha256(f"{self.recipe.to_json()}\n{self.tokenizer_json}".encode()).hexdigest()

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def tokenize(self, items: Iterable[Item | Mapping[str, AttributeValue]]) -> ItemTokens:
        """Token ids of each item, or of its attributes alone.

        An item with none of the attributes has no tokens; one with no visible text in any of them has only their names.
        """
        texts = [self._texts(item.attributes if isinstance(item, Item) else item) for item in items]
        fresh = list({name for pairs in texts for name, _ in pairs} - self.names.keys())
        if len(self.names) + len(fresh) > 10_000:  # names come from users, so the cache is bounded
            self.names = {}
            fresh = list({name for pairs in texts for name, _ in pairs})
        names = self.names | dict(zip(fresh, self._ids(fresh), strict=True))
        self.names = names
        values = iter(self._ids([value for pairs in texts for _, value in pairs]))
        limit = self.recipe.max_attr_length
        result = []
        for pairs in texts:
            ids, types = [_NO_IDS], [_NO_TYPES]
            for name, _ in pairs:
                name_ids = names[name][:limit]
                value_ids = next(values)[: limit - len(name_ids)]
                ids += [name_ids, value_ids]
                types += [np.full(len(name_ids), NAME, np.uint8), np.full(len(value_ids), VALUE, np.uint8)]
            result.append(TokenizedItem(np.concatenate(ids), np.concatenate(types)))
        return ItemTokens.concatenate(result)

    def _texts(self, attributes: Mapping[str, AttributeValue]) -> list[tuple[str, str]]:
        texts = self.recipe.texts(attributes)
        return texts if any(has_visible_text(value) for _, value in texts) else [(name, "") for name, _ in texts]

    def _ids(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


_NO_IDS = np.zeros(0, np.int32)
_NO_TYPES = np.zeros(0, np.uint8)
