"""Examples of all commands, by program name: the end of each help. Placeholders are in capitals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, Sequence[str]] = {
    "seqrec init": (
        "seqrec init --items products.csv --events log.csv",
        "seqrec init --items 'postgresql://shop@db/shop' --items-query 'SELECT * FROM products' --events log.parquet",
    ),
    "seqrec up": ("seqrec up", "seqrec up shops/lab/shop.toml --until evaluate"),
    "seqrec check": ("seqrec check", "seqrec check shops/lab/shop.toml --json"),
    "seqrec status": ("seqrec status", "seqrec status --json"),
    "seqrec demo": ("seqrec demo", "SEQREC_PORT=8080 seqrec demo --fresh"),
    "seqrec doctor": ("seqrec doctor", "seqrec doctor --json"),
    "seqrec completion": (
        "seqrec completion bash > ~/.local/share/bash-completion/completions/seqrec",
        "seqrec completion zsh > ~/.zfunc/_seqrec",
        "seqrec completion fish > ~/.config/fish/completions/seqrec.fish",
    ),
    "seqrec import": (
        "seqrec import movielens ml-1m --out shops/movies",
        "seqrec import recbole dataset/ml-100k --out shops/movies",
    ),
    "seqrec import recformer": (
        "seqrec import recformer --weights recformer.bin --config config.json --tokenizer tokenizer --out CKPT",
    ),
    "seqrec import recformer-data": ("seqrec import recformer-data finetune_data/Scientific --out shops/lab",),
    "seqrec import recbole": ("seqrec import recbole dataset/ml-100k --out shops/movies --min-rating 4",),
    "seqrec import amazon": (
        "seqrec import amazon --reviews Scientific.json.gz --metadata meta_Scientific.json.gz --out shops/lab",
    ),
    "seqrec import movielens": ("seqrec import movielens ml-1m --out shops/movies",),
    "seqrec export": ("seqrec export recbole --items items.jsonl --interactions events.csv --out dataset/shop",),
    "seqrec export recbole": (
        "seqrec export recbole --items items.jsonl --interactions events.csv --out dataset/shop",
    ),
    "seqrec pretrain": ("seqrec pretrain --data shops/lab --data shops/movies --preset pretrain_small --out runs/all",),
    "seqrec train": (
        "seqrec train --items items.jsonl --interactions events.csv --out runs/first",
        "seqrec train --items items.jsonl --interactions events.csv --preset sasrec --set optimizer.max_epochs=20 "
        "--out runs/ids",
    ),
    "seqrec runs": ("seqrec runs runs", "seqrec runs runs --json"),
    "seqrec evaluate": (
        "seqrec evaluate runs/first/checkpoint --items items.jsonl --interactions events.csv --out report",
        "seqrec evaluate A/checkpoint B/checkpoint --items items.jsonl --interactions events.csv --k 10 20",
    ),
    "seqrec suite": ("seqrec suite paper shops/lab --out tables --quick",),
    "seqrec index": ("seqrec index build --checkpoint CKPT --items items.jsonl --publish", "seqrec index list"),
    "seqrec index build": (
        "seqrec index build --checkpoint CKPT --items items.jsonl --interactions events.csv --publish",
    ),
    "seqrec index verify": ("seqrec index verify 20261129T110203-000813-1a2b3c",),
    "seqrec index publish": ("seqrec index publish 20261129T110203-000813-1a2b3c",),
    "seqrec index rollback": ("seqrec index rollback",),
    "seqrec index remove": ("seqrec index remove 20261129T110203-000813-1a2b3c",),
    "seqrec index list": ("seqrec index list --json",),
    "seqrec reindex": (
        "seqrec reindex",
        "seqrec reindex --checkpoint runs/second/checkpoint",
        "seqrec reindex --checkpoint runs/second/checkpoint --ray 10.0.0.5:6379 --actors 16",
    ),
    "seqrec sync": ("seqrec sync products.csv", "seqrec sync export.csv --allow-gone"),
    "seqrec consume": (
        "seqrec consume redis://localhost:6379/0 --stream shop --once",
        "seqrec consume 'kafka://localhost:9092/shop?group=seqrec'",
    ),
    "seqrec retrain": ("seqrec retrain", "seqrec retrain --no-publish --json"),
    "seqrec catalogue": ("seqrec catalogue dump backup.jsonl.gz --histories", "seqrec catalogue info"),
    "seqrec catalogue dump": ("seqrec catalogue dump backup.jsonl.gz --histories",),
    "seqrec catalogue restore": ("seqrec catalogue restore backup.jsonl.gz",),
    "seqrec catalogue info": ("seqrec catalogue info --json",),
    "seqrec events": ("seqrec events import orders.csv", "seqrec events types view=0.25 dislike=negative"),
    "seqrec events import": ("seqrec events import orders.csv --on-error skip",),
    "seqrec events types": (
        "seqrec events types",
        "seqrec events types view=0.25 purchase=1 dislike=negative --session-gap 30min",
    ),
    "seqrec users": ("seqrec users export customer-17850", "seqrec users delete customer-17850"),
    "seqrec users export": ("seqrec users export customer-17850 > events.jsonl", "seqrec users export --all"),
    "seqrec users delete": ("seqrec users delete customer-17850",),
    "seqrec placements": ("seqrec placements set product-page rules.json", "seqrec placements list"),
    "seqrec placements list": ("seqrec placements list --json",),
    "seqrec placements show": ("seqrec placements show product-page",),
    "seqrec placements set": (
        "seqrec placements set product-page rules.json",
        """echo '{"k": 8, "at_most": {"brand": 2}}' | seqrec placements set product-page -""",
    ),
    "seqrec placements delete": ("seqrec placements delete product-page",),
    "seqrec report": (
        "seqrec report --days 7",
        "seqrec report --by placement --placement product-page --json",
        "seqrec report --candidate 20261129T110203-008113-1a2b3c --placement product-page",
    ),
    "seqrec size": ("seqrec size --items 1e6 --rps 200 --history 20",),
    "seqrec compare": (
        "seqrec compare",
        "seqrec compare 20261129T110203-008113-1a2b3c 20261130T020000-008400-9f8e7d --user 17850 13047",
    ),
    "seqrec keys": ("seqrec keys create shop --scope recommend write", "seqrec keys list"),
    "seqrec keys create": ("seqrec keys create shop --scope recommend write --expires 90d --rate 100/s",),
    "seqrec keys list": ("seqrec keys list --json",),
    "seqrec keys revoke": ("seqrec keys revoke shop",),
    "seqrec serve": ("seqrec serve", "SEQREC_WORKERS=4 seqrec serve --host 127.0.0.1 --port 8080"),
    "seqrec bench": ("seqrec bench encode --json encode.json", "seqrec bench memory"),
}
