"""Compares the scores of RecBole's models with those of ours that have the same weights.

    pip install torch==2.13.0 recbole==1.2.1 "numpy<2" "pandas<2.2" "scipy<1.13" "setuptools<80" tokenizers safetensors
    seqrec bench recbole-parity     # seconds; in a separate environment, with these old versions

Each of RecBole's models is built on a small data set with random weights, which are copied into ours. Both score all
items for histories of every length. For S3-Rec the pretraining loss is compared as well, on the same masks and
segments.

Known differences, for which the comparison compensates:

- RecBole counts positions from the oldest item, ours from the newest: the rows of the table are moved for each length.
- RecBole's BERT4Rec drops the oldest item when it appends [mask], even if there is room for it.
- RecBole's norms have an epsilon of 1e-12, ours of 1e-5: RecBole's is set to ours.
- For an attribute that an item lacks, RecBole has a learned vector (fields of one token) and ours 0: no item lacks it.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqrec.data.items import Item, make_item
from seqrec.models import model_class
from seqrec.models.base.ids import IdModel
from seqrec.models.base.item_features import feature_names, field_tags
from seqrec.models.s3rec import PretrainingBatch, S3Rec
from seqrec.runtime.arguments import Parser
from seqrec.text.item_text import TokenizedHistory

LENGTH, DIM, INNER, LAYERS, HEADS = 12, 32, 48, 2, 4
FEATURES = "brand:token,title,category"
COMMON = {"dim": DIM, "max_length": LENGTH, "dropout": 0.0}
ATTENTION = {**COMMON, "layers": LAYERS, "heads": HEADS}
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("SASRec", {**ATTENTION, "inner": INNER, "form": "bert"}),
    "gru4rec": ("GRU4Rec", {**COMMON, "hidden": INNER}),
    "bert4rec": ("BERT4Rec", {**ATTENTION, "norms": True}),
    "fdsa": ("FDSA", {**ATTENTION, "inner": INNER, "features": FEATURES}),
    "s3rec": ("S3Rec", {**ATTENTION, "inner": INNER, "features": "category"}),
}
"""Our models by name: RecBole's name, and the settings with which ours is the same."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the largest difference for each model. Exit code 1 if one exceeds the tolerance."""
    parser = Parser(prog="seqrec bench recbole-parity", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest accepted difference of scores, which are about 1 to 10"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to FILE")
    arguments = parser.parse_args(argv)
    sys.argv = sys.argv[:1]  # RecBole parses it as well
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)  # from its use of pandas
    torch.set_num_threads(1)  # the models are small
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_files(Path(folder) / "parity", arguments.seed)
        results = [compared(name, Path(folder), arguments.seed) for name in MODELS]
    titles = ("histories", 9), ("items", 6), ("largest score", 14), ("largest difference", 19), ("same best item", 15)
    print(f"{'model':10} " + " ".join(f"{title:>{width}}" for title, width in titles))
    for one in results:
        print(
            f"{one['model']:10} {one['histories']:9} {one['items']:6} {one['largest']:14.3f} {one['difference']:19.2e} "
            f"{one['same_best']:15.1%}"
        )
        if "pretraining" in one:
            theirs, ours = one["pretraining"]
            print(f"{'':10} loss of pretraining: RecBole {theirs:.5f}, ours {ours:.5f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    apart = [one["model"] for one in results if one["difference"] > arguments.tolerance]
    apart += [one["model"] for one in results if "pretraining" in one and _relative(*one["pretraining"]) > 1e-5]
    if apart:
        raise SystemExit(f"the scores of {', '.join(apart)} differ")


def _relative(one: float, other: float) -> float:
    return abs(one - other) / abs(one)


def write_atomic_files(folder: Path, seed: int, users: int = 60, items: int = 80) -> None:
    """A data set in RecBole's format: every item has a brand, some have neither words nor categories."""
    folder.mkdir()
    chance = random.Random(seed)
    words, kinds = [f"w{n}" for n in range(40)], [f"c{n}" for n in range(9)]
    lines = ["item_id:token\tbrand:token\ttitle:token_seq\tcategory:token_seq"]
    for item in range(items):
        title = " ".join(chance.sample(words, chance.randrange(6)))
        category = " ".join(chance.sample(kinds, chance.randrange(1, 4)))
        lines.append(f"i{item}\tb{chance.randrange(7)}\t{title}\t{category}")
    (folder / "parity.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(users):
        had = chance.sample(range(items), 15)
        lines += [f"u{user}\ti{item}\t{step}" for step, item in enumerate(had)]
    (folder / "parity.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


def compared(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Compares RecBole's model with ours of that name, with equal weights, on histories of every length."""
    from recbole.data.interaction import Interaction

    theirs, dataset = recbole_model(name, folder, seed)
    items = items_of(dataset)
    kind = model_class(name)
    assert issubclass(kind, IdModel)
    ours = kind.from_items(kind.settings_class(**MODELS[name][1]), items, []).eval()
    take_weights(name, theirs, ours, dataset, items)
    chance = random.Random(seed)
    differences, largest, same, histories = 0.0, 0.0, 0, 0
    with torch.no_grad():
        vectors = ours.encode_items(ours.prepare_items(list(ours.tokenize_items(items))))
        for length in range(1 + (name == "bert4rec"), LENGTH + 1):
            some = [[chance.randrange(len(items)) for _ in range(length)] for _ in range(20)]
            padded = torch.tensor([[row + 1 for row in rows] + [0] * (LENGTH - length) for rows in some])
            lengths = torch.full((len(some),), length)
            expected = theirs.full_sort_predict(Interaction({"item_id_list": padded, "item_length": lengths}))[:, 1:]
            move_positions(theirs, ours, length)
            read = [rows[1:] for rows in some] if name == "bert4rec" else some
            scores = ours.encode_histories(ours.prepare_histories(histories_of(ours, items, read))) @ vectors.T
            differences = max(differences, float((scores - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
            same += int((scores.argmax(1) == expected.argmax(1)).sum())
            histories += len(some)
    result = {
        "model": name,
        "histories": histories,
        "items": len(items),
        "largest": largest,
        "difference": differences,
        "same_best": same / histories,
    }
    if isinstance(ours, S3Rec):
        result["pretraining"] = pretraining_losses(theirs, ours, items, dataset, seed)
    return result


def recbole_model(name: str, folder: Path, seed: int) -> tuple[Any, Any]:
    """The model, in which all weights are random so that a missing copy is noticed, and its data set."""
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model, init_seed

    their_name, settings = MODELS[name]
    config = Config(
        model=their_name,
        dataset="parity",
        config_dict={
            "data_path": str(folder),
            "load_col": {
                "inter": ["user_id", "item_id", "timestamp"],
                "item": ["item_id", "brand", "title", "category"],
            },
            "MAX_ITEM_LIST_LENGTH": LENGTH,
            "hidden_size": INNER if name == "gru4rec" else DIM,
            "embedding_size": DIM,
            "inner_size": 4 * DIM if name == "bert4rec" else INNER,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "num_layers": 1,
            "layer_norm_eps": 1e-5,
            "loss_type": "CE",
            "train_neg_sample_args": None,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "selected_features": [field.partition(":")[0] for field in feature_names(FEATURES)],
            "item_attribute": "category",
            "train_stage": "pretrain",
            "aap_weight": settings.get("aap", 0.2),
            "use_gpu": False,
            "state": "ERROR",
            "show_progress": False,
        },
    )
    init_seed(seed, True)
    dataset = create_dataset(config).build()[0]
    model = get_model(their_name)(config, dataset).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        model.item_embedding.weight[0] = 0
    return model, dataset


def items_of(dataset: Any) -> list[Item]:
    """In the order of RecBole's item numbers, which start at 1."""
    features = dataset.get_item_feature()

    def said(field: str, row: int) -> str:
        numbers = features[field][row].reshape(-1).tolist()
        return " ".join(str(dataset.id2token(field, int(number))) for number in numbers if number)

    return [
        make_item(
            str(dataset.id2token("item_id", row)),
            {field: said(field, row) for field in ("brand", "title", "category")},
        )
        for row in range(1, dataset.item_num)
    ]


def histories_of(model: IdModel, items: Sequence[Item], rows: Sequence[Sequence[int]]) -> list[TokenizedHistory]:
    tokens = list(model.tokenize_items(items))
    return [TokenizedHistory([tokens[row] for row in some]) for some in rows]


@torch.no_grad()
def move_positions(theirs: Any, ours: Any, length: int) -> None:
    """For histories of `length` items: RecBole's oldest item is at position 0, our newest at the last position."""
    if hasattr(ours, "position_vectors"):
        ours.position_vectors[LENGTH - length :] = theirs.position_embedding.weight[:length]


@torch.no_grad()
def take_weights(name: str, theirs: Any, ours: Any, dataset: Any, items: Sequence[Item]) -> None:
    table = theirs.item_embedding.weight
    ours.items.weight[: len(items)] = table[1 : len(items) + 1]
    linear, blocks = _copy, _copy_blocks
    if name == "gru4rec":
        gru = theirs.gru_layers
        ours.gru.weight_ih_l0.copy_(gru.weight_ih_l0)
        ours.gru.weight_hh_l0.copy_(gru.weight_hh_l0)
        ours.gru.bias_ih_l0.zero_()  # RecBole's model has none
        ours.gru.bias_hh_l0.zero_()
        linear(theirs.dense, ours.out)
    if name in ("sasrec", "s3rec"):
        linear(theirs.LayerNorm, ours.norm)
        blocks(theirs.trm_encoder, ours.blocks)
    if name == "bert4rec":
        ours.items.weight[ours.mask] = table[theirs.mask_token]
        ours.biases.weight[: len(items), 0] = theirs.output_bias[1:]
        linear(theirs.LayerNorm, ours.norm_in)
        blocks(theirs.trm_encoder, ours.blocks)
        linear(theirs.output_ffn, ours.transform)
        linear(theirs.output_ln, ours.norm_out)
    if name == "s3rec":
        ours.items.weight[ours.mask] = table[theirs.mask_token]
        for head in ("aap", "mip", "map", "sp"):
            linear(getattr(theirs, f"{head}_norm"), getattr(ours, head))
        take_tags(ours, items, lambda field, tag: theirs.feature_embedding.weight[dataset.token2id(field, tag) - 1])
    if name == "fdsa":
        linear(theirs.LayerNorm, ours.norm)
        blocks(theirs.item_trm_encoder, ours.item_blocks)
        blocks(theirs.feature_trm_encoder, ours.feature_blocks)
        linear(theirs.feature_att_layer.projection[0], ours.attend)
        linear(theirs.feature_att_layer.projection[2], ours.energy)
        linear(theirs.concat_layer, ours.join)
        layer = theirs.feature_embed_layer
        tables = dict(zip(layer.token_seq_field_names["item"], layer.token_seq_embedding_table["item"], strict=True))
        tables |= {"brand": layer.token_embedding_table["item"].embedding}
        take_tags(ours, items, lambda field, tag: tables[field].weight[dataset.token2id(field, tag)])


def take_tags(ours: Any, items: Sequence[Item], vector: Callable[[str, str], Tensor]) -> None:
    """Our tags are numbered in order of occurrence, item by item and field by field."""
    numbers: dict[tuple[str, str], int] = {}
    for item in items:
        for field in feature_names(ours.settings.features):
            for tag in field_tags(field, item.attributes):
                numbers.setdefault((field, tag), len(numbers))
    assert len(numbers) == ours.known.vocabulary
    for (field, tag), number in numbers.items():
        ours.tags.weight[number] = vector(field.partition(":")[0], tag)


def pretraining_losses(theirs: Any, ours: S3Rec, items: Sequence[Item], dataset: Any, seed: int) -> tuple[float, float]:
    """The summed losses of RecBole's S3-Rec and of ours, on the same masks, negatives and segments."""
    move_positions(theirs, ours, LENGTH)
    chance = random.Random(seed)
    rows = [chance.sample(range(len(items)), length) for length in range(2, LENGTH + 1)]
    batch = ours.prepare_pretraining(histories_of(ours, items, rows), torch.Generator().manual_seed(seed))
    assert isinstance(batch, PretrainingBatch)

    def as_theirs(ours_rows: Tensor) -> Tensor:
        """RecBole's item numbers, padded on the left."""
        padded = torch.zeros(len(rows), LENGTH, dtype=torch.int64)
        for into, row, length in zip(padded, ours_rows, batch.lengths.tolist(), strict=True):
            numbers = row[:length] + 1
            into[LENGTH - length :] = torch.where(row[:length] == ours.mask, theirs.mask_token, numbers)
        return padded

    features = torch.zeros(len(rows), LENGTH, theirs.n_features)
    feature = dataset.get_item_feature()["category"]
    wanted = as_theirs(batch.rows)
    for place in (wanted > 0).nonzero().tolist():
        numbers = feature[wanted[tuple(place)]]
        features[tuple(place)][numbers[numbers > 0] - 1] = 1
    masked = batch.rows.masked_fill(batch.masked, ours.mask)
    with torch.no_grad():
        expected = theirs.pretrain(
            features,
            as_theirs(masked),
            wanted,
            as_theirs(batch.negatives),
            as_theirs(batch.rest),
            as_theirs(batch.segment),
            as_theirs(batch.other_segment),
        )
        loss = ours.pretraining_loss(batch) * batch.lengths.sum()
    return float(expected), float(loss)


def _copy(theirs: Any, ours: Any) -> None:
    """The weights of a linear layer or a norm."""
    ours.weight.copy_(theirs.weight)
    ours.bias.copy_(theirs.bias)


def _copy_blocks(theirs: Any, ours: nn.ModuleList) -> None:
    for layer, block in zip(theirs.layer, ours, strict=True):
        attention, network = layer.multi_head_attention, layer.feed_forward
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(attention, part), kind) for part in ("query", "key", "value")]
            getattr(block.qkv, kind).copy_(torch.cat(parts))
        _copy(attention.dense, block.out)
        _copy(attention.LayerNorm, block.attention_norm)
        _copy(network.dense_1, block.widen)
        _copy(network.dense_2, block.narrow)
        _copy(network.LayerNorm, block.feed_forward_norm)


if __name__ == "__main__":
    main()
