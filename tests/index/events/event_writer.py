"""A process that stores events and deletes users, and prints each step once it was acknowledged.

python event_writer.py MODULE:CLASS LOCATION STEPS: step n adds three events of user n % 7, with ids made of n; every
tenth step deletes user n % 7 first.
"""

from __future__ import annotations

import sys
from importlib import import_module

from index.catalogue.histories import Event, HistoryStore


def events_of(step: int) -> list[Event]:
    return [Event(f"u{step % 7}", f"i{(step * 3 + k) % 20}", float(step), f"{step}-{k}") for k in range(3)]


def take(store: HistoryStore, step: int) -> None:
    if step % 10 == 9:
        store.delete(f"u{step % 7}")
    store.add(events_of(step))


def main() -> None:
    factory, location, steps = sys.argv[1:]
    module, _, attribute = factory.partition(":")
    store = getattr(import_module(module), attribute)(location)
    for step in range(int(steps)):
        take(store, step)
        print(step, flush=True)


if __name__ == "__main__":
    main()
