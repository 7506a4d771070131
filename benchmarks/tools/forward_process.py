"""A process that encodes one history repeatedly with the threads of its environment, for `benchmarks.speed.threads`.

python -m benchmarks.tools.forward_process CHECKPOINT TOKENS  # reads seconds of work, prints the time of each forward
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from seqrec.encoder import load_model
from seqrec.models.recformer.model import Recformer
from seqrec.runtime.threads import choose, use
from seqrec.text.item_text import VALUE, TokenizedHistory, TokenizedItem

LEAST = 3
"""Forward passes at least, however long they take."""


def main() -> None:
    encoder = load_model(Path(sys.argv[1]), "cpu")
    use(choose())
    model, tokens = encoder.checkpoint.history_model, int(sys.argv[2])
    assert isinstance(model, Recformer)
    ids = np.random.default_rng(0).integers(4, model.config.vocab_size, tokens - 1).astype(np.int32)
    history = TokenizedHistory([TokenizedItem(ids, np.full(len(ids), VALUE, np.uint8))])
    encoder.encode_history_tokens([history])
    for line in sys.stdin:
        took: list[float] = []
        while len(took) < LEAST or sum(took) < float(line):
            begin = time.perf_counter()
            encoder.encode_history_tokens([history])
            took.append(time.perf_counter() - begin)
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
