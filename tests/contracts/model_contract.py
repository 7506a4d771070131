"""What every model must do. A new model subclasses `ModelContract` in ten lines and is held to all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from seqrec import Encoder, History, load_model
from seqrec.checkpoint import save_checkpoint
from seqrec.data.items import Item, make_item
from seqrec.metric import Metric
from seqrec.models import model_class
from seqrec.models.base.model import SequenceModel
from seqrec.text.item_text import TokenizedHistory

KINDS = ("desk", "lamp", "mug", "pot", "chair", "clock")
COLOURS = ("red", "blue", "green", "white")
INT8_ERROR = 0.05
"""Of all vectors together, relative to their norm."""


class ModelContract:
    """Subclass as `TestX`, set `name` (of MODELS), and give `make` and `planted`."""

    name: ClassVar[str]
    reads_order: ClassVar[bool] = True
    """False if two items in either order are the same history to the model."""
    longest: ClassVar[int] = 60
    """The model reads at most this many items of `items()`, so its `max_length` is no larger here."""

    def make(self) -> SequenceModel:
        """A model; the same weights at each call."""
        raise NotImplementedError(f"define `make` in {type(self).__name__}: a small model")

    def planted(self) -> tuple[SequenceModel, list[tuple[list[Item], Item]]]:
        """A model, trained where it must be, and histories with the item of `items()` it has to rank first."""
        raise NotImplementedError(f"define `planted` in {type(self).__name__}")

    def items(self) -> list[Item]:
        """Items the model can encode, of different lengths."""
        return [
            make_item(f"{kind}-{colour}", {"title": " ".join([colour, kind] + ["and more"] * size), "brand": "Acme"})
            for size, kind in enumerate(KINDS)
            for colour in COLOURS
        ]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        save_checkpoint(tmp_path / "checkpoint", self.name, self.make())
        return tmp_path / "checkpoint"

    @pytest.fixture
    def encoder(self, path: Path) -> Encoder:
        return load_model(path, device="cpu")

    def histories(self) -> list[list[Item]]:
        items = self.items()
        return [items[:1], items[3:9], [], items[::-1], items[5:7], items[2:20:3]]

    def test_it_is_a_model_of_the_table(self) -> None:
        model = self.make()
        assert isinstance(model, model_class(self.name))
        assert isinstance(model, SequenceModel)
        assert isinstance(model, torch.nn.Module)
        assert model.metric in Metric
        assert model.dim > 0

    def test_its_configuration_is_json_that_makes_it_again(self) -> None:
        model = self.make()
        config = json.loads(json.dumps(model.config_json()))
        again = model_class(self.name).from_config(config, model.item_text)
        assert json.loads(json.dumps(again.config_json())) == config
        assert isinstance(again, torch.nn.Module)
        assert isinstance(model, torch.nn.Module)
        assert {n: t.shape for n, t in again.state_dict().items()} == {
            n: t.shape for n, t in model.state_dict().items()
        }

    def test_vectors_are_finite_float32_of_its_dim_and_unit_where_cosine(self, encoder: Encoder) -> None:
        items, queries = encoder.encode_items(self.items()), encoder.encode_histories(self.histories())
        assert items.shape == (len(self.items()), encoder.dim)
        assert queries.shape == (len(self.histories()), encoder.dim)
        for vectors in (items, queries):
            assert vectors.dtype == np.float32
            assert np.isfinite(vectors).all()
        if encoder.metric is Metric.COSINE:
            assert np.linalg.norm(items, axis=1) == pytest.approx(1, abs=1e-5)

    def test_nothing_in_is_nothing_out(self, encoder: Encoder) -> None:
        assert encoder.encode_items([]).shape == (0, encoder.dim)
        assert encoder.encode_histories([]).shape == (0, encoder.dim)

    def test_an_item_is_the_same_alone_and_in_a_batch(self, encoder: Encoder) -> None:
        together = encoder.encode_items(self.items())
        for row, item in enumerate(self.items()):
            np.testing.assert_allclose(encoder.encode_items([item])[0], together[row], atol=1e-5)

    @pytest.mark.parametrize("token_budget", [1, 40, 4096])
    def test_a_history_is_the_same_alone_and_in_a_batch(self, encoder: Encoder, token_budget: int) -> None:
        alone = np.concatenate([encoder.encode_histories([history]) for history in self.histories()])
        encoder.token_budget = token_budget
        np.testing.assert_allclose(
            encoder.encode_histories(self.histories()),
            alone,
            atol=1e-5,
            err_msg="a history depends on the rest of its batch: does the model read padding?",
        )

    def test_rows_come_in_the_order_of_the_inputs(self, encoder: Encoder) -> None:
        order = np.random.default_rng(0).permutation(len(self.items()))
        items = self.items()
        shuffled = encoder.encode_items([items[i] for i in order])
        np.testing.assert_allclose(shuffled, encoder.encode_items(items)[order], atol=1e-5)

    def test_saved_and_loaded_it_gives_equal_vectors(self, path: Path, encoder: Encoder, tmp_path: Path) -> None:
        again = load_model(path, device="cpu")
        assert np.array_equal(again.encode_items(self.items()), encoder.encode_items(self.items()))
        assert np.array_equal(again.encode_histories(self.histories()), encoder.encode_histories(self.histories()))
        second = save_checkpoint(tmp_path / "second", self.name, encoder.checkpoint.history_model)
        assert second == encoder.checkpoint.digest

    def test_its_int8_form_gives_nearly_the_same_vectors(self, path: Path, encoder: Encoder) -> None:
        """Each plain `nn.Linear` is replaced for `--precision int8`, on any processor; only VNNI makes it fast."""
        needs = (
            "int8 replaces each nn.Linear: call it with inputs of two dimensions [rows, features], and do not read its "
            "weight (a matrix that is read is an nn.Parameter)"
        )
        try:
            rounded = load_model(path, device="cpu", precision="int8")
            pairs = [
                (encoder.encode_items(self.items()), rounded.encode_items(self.items())),
                (encoder.encode_histories(self.histories()), rounded.encode_histories(self.histories())),
            ]
        except (RuntimeError, IndexError, AttributeError) as error:
            raise AssertionError(needs) from error
        for exact, near in pairs:
            assert np.linalg.norm(near - exact) <= INT8_ERROR * np.linalg.norm(exact), needs

    def test_an_empty_history_is_always_the_same(self, encoder: Encoder) -> None:
        empty = encoder.encode_histories([[]])
        assert np.isfinite(empty).all()
        among_others = encoder.encode_histories([[], self.items()[:2], []])[[0, 2]]
        np.testing.assert_allclose(among_others, empty.repeat(2, 0), atol=1e-5)

    def test_a_history_is_read_oldest_first(self, encoder: Encoder) -> None:
        first, second = self.items()[0], self.items()[9]
        a, b = encoder.encode_histories([[first, second], [second, first]])
        same = np.allclose(a, b, atol=1e-6)
        assert same != self.reads_order, (
            f"two items in either order are {'the same' if same else 'different'} histories; if that is meant, set "
            f"`reads_order = {not same}` in {type(self).__name__}"
        )

    def test_the_newest_that_fit_are_read(self, encoder: Encoder) -> None:
        items = self.items()
        newest = [items[i % len(items)] for i in range(self.longest)]
        short, long = encoder.encode_histories([newest, items[:7] * 20 + newest])
        np.testing.assert_allclose(
            short,
            long,
            atol=1e-5,
            err_msg=f"items before the newest {self.longest} are read: lower `max_length` in the test's `settings`, or "
            f"raise `longest` in {type(self).__name__}",
        )

    def test_a_user_id_alone_does_no_harm(self, encoder: Encoder) -> None:
        known = encoder.encode_histories([History(tuple(self.items()[:3]), user_id="nobody has met this user")])
        assert np.isfinite(known).all()

    def test_it_says_what_a_history_costs(self) -> None:
        model = self.make()
        tokens = model.tokenize_items(self.items())
        for items in ([], [tokens[0]], list(tokens), list(tokens) * 10):
            history = TokenizedHistory(items)
            assert model.prepare_histories([history]).tokens == model.history_tokens(history)

    @pytest.mark.slow
    def test_the_planted_item_comes_first(self, tmp_path: Path) -> None:
        model, cases = self.planted()
        save_checkpoint(tmp_path / "planted", self.name, model)
        encoder = load_model(tmp_path / "planted", device="cpu")
        items = self.items()
        scores = encoder.metric.scores(
            encoder.encode_histories([history for history, _ in cases]), encoder.encode_items(items)
        )
        best = [items[row].item_id for row in scores.argmax(1)]
        first = [expected.item_id for _, expected in cases]
        found = sum(one == other for one, other in zip(best, first, strict=True))
        assert best == first, f"{found} of {len(first)} planted items come first: too short a training, or a wrong loss"

    def test_an_item_never_seen(self, encoder: Encoder) -> None:
        """From its text, where the model reads text; where it only knows ids, it makes no tokens of it: no guessing."""
        new = make_item("never seen", {"title": "purple umbrella", "brand": "Rain"})
        if not encoder.cold_items:
            assert [len(item.ids) for item in encoder.tokenize_items([new])] == [0]
            return
        twin = make_item("its twin", {"title": "purple umbrella", "brand": "Rain"})
        vectors = encoder.encode_items([new, twin, *self.items()])
        scores = encoder.metric.scores(vectors[:1], vectors)[0]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert scores[1] > scores[2:].max()

    def test_an_item_without_text(self, encoder: Encoder) -> None:
        silent: Sequence[Item] = [make_item("silent", {})]
        vectors = encoder.encode_histories([silent, [*self.items()[:2], *silent]])
        assert np.isfinite(encoder.encode_items(silent)).all()
        assert np.isfinite(vectors).all()
