"""The simplest comparable service: sentence-transformers behind FastAPI, with faiss's flat index.

`benchmarks.speed.serve` compares with it. As in the documentation of sentence-transformers: one model, `encode` in
FastAPI's thread pool, one call per request.

    python -m benchmarks.tools.alternative_service MODEL TEXTS.json     # prints its URL
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import faiss
import uvicorn
from fastapi import FastAPI


def create_app(model_path: str, texts: dict[str, str]) -> FastAPI:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(model_path, device="cpu")
    ids = list(texts)
    vectors = model.encode(list(texts.values()), batch_size=32, normalize_embeddings=True)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    app = FastAPI()

    @app.post("/recommend")
    def recommend(request: dict[str, Any]) -> dict[str, Any]:
        history = [item_id for item_id in request["history"] if item_id in texts]
        text = " ".join(texts[item_id] for item_id in reversed(history))
        query = model.encode([text], normalize_embeddings=True)
        seen = set(history)
        scores, rows = index.search(query, request["k"] + len(seen))
        found = [(ids[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]
        items = [{"item_id": item_id, "score": score} for item_id, score in found if item_id not in seen]
        return {"items": items[: request["k"]]}

    return app


def main() -> None:
    app = create_app(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
