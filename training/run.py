"""One training run, from files to a run directory.

config.toml     every setting, as resolved
run.json        seed, data digest, checkpoint digest, how it ended, versions
metrics.jsonl   one line a report: steps, validations, the end
checkpoint/     the best weights (seqrec.checkpoint)

The directory appears whole when the training is done, or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from seqrec import __version__
from seqrec.checkpoint import save_checkpoint
from seqrec.errors import InputError
from seqrec.files import new_directory
from seqrec.items import OnError
from training.config import RunConfig
from training.data import read_dataset
from training.evaluation import encoder_of, validation_metrics
from training.joint import JointStage
from training.loop import Fitted, fit
from training.start import starting_point

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    items: Path,
    interactions: Path,
    out: Path,
    on_error: OnError = "raise",
    overwrite: bool = False,
) -> Fitted:
    """Train as `config` says and write the run directory `out`.

    Raises InputError where `out` exists (unless `overwrite`) and for settings and data that cannot be trained on.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; choose another directory, or say --overwrite", "--out")
    set_threads(config.threads)
    seed_everything(config.seed)
    start = starting_point(config)
    dataset = read_dataset(items, interactions, start.recipe, on_error)
    cases = dataset.cases("valid").sample(config.validation.users, config.seed)
    model = start.build(dataset.items)
    encoder = encoder_of(model, start.model_name, config.device or None)
    tokens = model.tokenize_items(dataset.items)
    stage = JointStage(dataset, tokens, config.joint, config.seed)
    log.info(
        "training %s (%s weights) on %d users, %d events, %d items, with %s",
        start.model_name,
        f"{sum(p.numel() for p in model.parameters()):,}" if isinstance(model, torch.nn.Module) else "?",
        dataset.users,
        len(dataset.events),
        len(dataset.items),
        f"{torch.get_num_threads()} threads" if encoder.device.type == "cpu" else encoder.device,
    )
    with new_directory(out, replace=overwrite) as directory:
        (directory / "config.toml").write_text(config.to_toml(), encoding="utf-8")
        with (directory / "metrics.jsonl").open("w", encoding="utf-8", buffering=1) as metrics:

            def record(entry: dict[str, Any]) -> None:
                metrics.write(json.dumps(entry) + "\n")

            fitted = fit(
                model,
                stage,
                lambda: validation_metrics(encoder, dataset, cases, tokens),
                config.optimizer,
                config.validation,
                encoder.device,
                record,
            )
        digest = save_checkpoint(directory / "checkpoint", start.model_name, model)
        about = {
            "seed": config.seed,
            "data_digest": dataset.digest,
            "checkpoint_digest": digest,
            "validation_users": len(cases),
            **asdict(fitted),
            "seqrec": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(encoder.device),
            "threads": torch.get_num_threads(),
        }
        (directory / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    log.info(
        "%s after %d steps, %.0f s; best weights of step %d: validation NDCG@10 %.4f (all items); wrote %s",
        fitted.ended,
        fitted.steps,
        fitted.seconds,
        fitted.best_step,
        fitted.best.ndcg,
        out,
    )
    wanted = config.optimizer.max_steps
    if fitted.ended == "time is up" and wanted:
        log.warning(
            "the clock ended the training after %d of %d steps, so the model may be worse than it could be: is the "
            "machine busy? optimizer.max_minutes allows more time",
            fitted.steps,
            wanted,
        )
    return fitted


def seed_everything(seed: int) -> None:
    """With the same seed, threads, limits in steps and machine, two runs give the same weights."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def set_threads(threads: int) -> None:
    """0: what OMP_NUM_THREADS says, or else one per physical core among those this process may run on."""
    if not threads:
        if "OMP_NUM_THREADS" in os.environ:
            return
        threads = min(len(os.sched_getaffinity(0)), psutil.cpu_count(logical=False) or 1)
    torch.set_num_threads(threads)
