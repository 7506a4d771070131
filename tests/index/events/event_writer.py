"""A process that stores events and deletes users, and prints each step once it was acknowledged.

python event_writer.py MODULE:CLASS LOCATION STEPS: step n adds three events of user n % 7, with ids made of n; every
tenth step deletes user n % 7 first. All are clicks on what answer n showed, in a variant of an experiment.
"""

from __future__ import annotations

import sys
from importlib import import_module

from index.catalogue.histories import Event, HistoryStore
from index.catalogue.outcomes import Attribution, Slot


def events_of(step: int) -> list[Event]:
    of = Attribution(step.to_bytes(12), Slot("home", 1, "e", f"v{step % 7 % 2}", "m", "s"), 1, "model", False)
    ids = [(f"i{(step * 3 + k) % 20}", f"{step}-{k}") for k in range(3)]
    return [Event(f"u{step % 7}", item, float(step), event_id, "clicked", 0.5, of) for item, event_id in ids]


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
