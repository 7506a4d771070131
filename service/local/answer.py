"""An answer in a notebook: a list of dicts that shows itself as a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from seqrec.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ATTRIBUTES = 4
_SHOWN_CHARACTERS = 60


class Answer(list[dict[str, Any]]):
    """Items, best first, as dicts with `item_id`, `score` and `attributes`, and `because` and `parts` with `explain`.

    `source` says what answered, such as "model" or "fallback:popular"; `unknown` are ids of the history that are in no
    catalogue; `degraded` is what was left out of the answer and why; `state` has `metric`, `model`, `snapshot`, `seq`.
    """

    def __init__(self, answer: Mapping[str, Any]) -> None:
        """`answer`: as the HTTP API has it."""
        super().__init__(answer["items"])
        self.source: str = answer.get("source", "model")
        self.unknown: list[str] = list(answer.get("unknown", ()))
        self.degraded: list[str] = list(answer.get("degraded", ()))
        self.state: dict[str, Any] = {name: answer[name] for name in ("metric", "model", "snapshot", "seq")}

    @property
    def item_ids(self) -> list[str]:
        """The ids, best first."""
        return [item["item_id"] for item in self]

    def to_pandas(self) -> pd.DataFrame:
        """A DataFrame with the columns `item_id`, `score` and one for each attribute, best item first.

        An attribute that is itself called `score` becomes `attributes.score`. Raises InputError without pandas.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise InputError("pandas is not installed: pip install pandas") from None
        rows = [{"item_id": item["item_id"], "score": item["score"], **_columns(item)} for item in self]
        return pd.DataFrame(
            rows, columns=list(dict.fromkeys(["item_id", "score", *(name for r in rows for name in r)]))
        )

    def __repr__(self) -> str:
        lines = [
            f"{place:>3}  {item['score']:>9.4f}  {item['item_id']:<{self._width}}  {_text(item)}".rstrip()
            for place, item in enumerate(self, 1)
        ]
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        """A table for notebooks: place, id, score with a bar, and the first attributes."""
        names = list(dict.fromkeys(name for item in self for name in item["attributes"]))[:_SHOWN_ATTRIBUTES]
        because = any(item.get("because") for item in self)
        head = "".join(f"<th>{escape(name)}</th>" for name in ["", "item_id", "score", *names])
        head += "<th>because</th>" if because else ""
        most = max((abs(item["score"]) for item in self), default=0.0) or 1.0
        rows = []
        for place, item in enumerate(self, 1):
            share = max(0.0, item["score"]) / most
            bar = (
                f'<div style="width:{80 * share:.0f}px;height:3px;background:currentColor;opacity:.5" '
                'aria-hidden="true"></div>'
            )
            cells = [str(place), escape(item["item_id"]), f"{item['score']:.4f}{bar}"]
            cells += [escape(_short(item["attributes"].get(name))) for name in names]
            if because:
                reasons = dict.fromkeys(reason["item_id"] for reason in item.get("because", ()))
                cells.append(escape(_short(list(reasons))))
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{notes}"

    @property
    def _width(self) -> int:
        return min(24, max((len(item["item_id"]) for item in self), default=0))

    def _notes(self) -> list[str]:
        notes = [] if self else ["no items"]
        if self.source != "model":
            notes.append(f"source: {self.source}")
        if self.unknown:
            notes.append(f"not in the catalogue: {_short(self.unknown)}")
        return [*notes, *self.degraded]


def _columns(item: Mapping[str, Any]) -> dict[str, Any]:
    taken = ("item_id", "score")
    return {f"attributes.{name}" if name in taken else name: value for name, value in item["attributes"].items()}


def _text(item: Mapping[str, Any]) -> str:
    values = list(item["attributes"].values())[:_SHOWN_ATTRIBUTES]
    return _short(", ".join(_short(value) for value in values))


def _short(value: Any) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
