"""What an answer contains of each item: the attributes that the request chose, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from seqrec.data.items import AttributeValue, Item, attribute_size
from seqrec.errors import DeadlineExceeded
from service.deadline import Deadline
from service.live.state import View

UNKNOWN_FIELD = "fields: no item has the attribute {!r}"


class AttributeBudget:
    """The attributes of the items of one HTTP answer. Once it is spent, items come without attributes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes

    def read(self, count: int, item: Callable[[int], Item], fields: Sequence[str] | None) -> tuple[list[Item], int]:
        """Items 0 to `count` - 1 with the attributes `fields` (None: all), and how many had to go without."""
        items: list[Item] = []
        left_out = 0
        for row in range(count):
            read = item(row)
            attributes = chosen(read.attributes, fields)
            size = sum(attribute_size(name, value) for name, value in attributes.items())
            if size > self._left:
                self._left, left_out, attributes = 0, left_out + 1, {}
            self._left -= size if attributes else 0
            items.append(read if attributes is read.attributes else replace(read, attributes=attributes))
        return items, left_out

    def left_out_message(self, count: int) -> list[str]:
        """For `degraded`."""
        if not count:
            return []
        return [
            f"the attributes of {count} items are left out: an answer has at most {self._max_bytes} bytes of them; "
            "ask for fewer items, or choose attributes with `fields`"
        ]


def chosen(attributes: Mapping[str, AttributeValue], fields: Sequence[str] | None) -> Mapping[str, AttributeValue]:
    """The attributes `fields`, in this order; None: all."""
    if fields is None:
        return attributes
    return {name: attributes[name] for name in fields if name in attributes}


def unknown_fields(view: View, fields: Sequence[str] | None, deadline: Deadline) -> list[str]:
    """A sentence for each of the fields that no item has.

    The first look at a name that was not seen yet reads the attributes of all items. It takes at most half of the
    deadline, and the next request continues; until all were read, nothing is reported.
    """

    def check() -> None:
        deadline.check()
        if deadline.remaining < deadline.seconds / 2:
            raise _NotInTime

    try:
        return [UNKNOWN_FIELD.format(name) for name in view.unknown_attributes(fields or (), check)]
    except _NotInTime:
        return []


class _NotInTime(DeadlineExceeded):
    pass
