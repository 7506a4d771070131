from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import pytest

from seqrec.errors import FileFormatError, InputError
from training.config.load import PRESETS, dump_config, load_config, load_stored_config, preset_path
from training.config.schema import OptimizerConfig, RunConfig, StageConfig

ENOUGH = "[optimizer]\nmax_steps = 3\n"


def config_of(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "run.toml"
    path.write_text(text)
    return load_config(path, overrides)


def keys(table: dict[str, Any], path: str = "") -> set[str]:
    """The dotted names of all settings of a table."""
    return {
        inner
        for name, value in table.items()
        for inner in (keys(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}"})
    }


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_preset_says_which_stages_it_has_and_sets_no_others(path: Path) -> None:
    table = tomllib.loads(path.read_text())
    config = load_config(path)
    assert {name for name in table if isinstance(getattr(config, name, None), StageConfig)} <= set(config.stages)
    assert all(config.optimizer_of(stage).ends for stage in config.stages)


def test_the_presets_together_state_and_explain_every_setting() -> None:
    stated = {name for path in PRESETS.glob("*.toml") for name in keys(tomllib.loads(path.read_text()))}
    assert keys(asdict(RunConfig(optimizer=OptimizerConfig(max_steps=1)))) <= stated


def test_the_demo_states_what_every_run_has() -> None:
    table = tomllib.loads(preset_path("demo").read_text())
    config = load_config(preset_path("demo"))
    general = {
        name: value
        for name, value in asdict(config).items()
        if name in config.stages or not isinstance(getattr(config, name), StageConfig)
    }
    assert keys(table) == keys(general)
    assert config.model.settings


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    config = load_config(preset_path("demo"), ['model.start_from="a \\"b\\" é"', "text.attributes=['x', 'y']"])
    (tmp_path / "again.toml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "again.toml") == config


def test_overrides_change_one_setting_each() -> None:
    config = load_config(
        preset_path("demo"), ["optimizer.max_steps=7", "joint.targets=later_half", "seed = 5", "model.settings.x=1.5"]
    )
    assert (config.optimizer.max_steps, config.joint.targets, config.seed) == (7, "later_half", 5)
    assert config.model.settings["x"] == 1.5
    assert load_config(preset_path("demo"), ["optimizer.clip_norm=2"]).optimizer.clip_norm == 2.0


def test_a_stage_changes_what_is_common_to_all(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, "[optimizer]\nclip_norm = 2\n[joint.optimizer]\nmax_steps = 4\n[joint.validation]\nchecks = 3\n"
    )
    assert (config.optimizer_of("joint").max_steps, config.optimizer_of("joint").clip_norm) == (4, 2.0)
    assert (config.optimizer.max_steps, config.validation_of("joint").checks) == (0, 3)
    (tmp_path / "again.toml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "again.toml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1\n" + ENOUGH, "sed: unknown setting, did you mean 'seed'\\?; there are adversarial, data, device"),
        (
            ENOUGH + "max_step = 1\n",
            r"optimizer\.max_step: unknown setting, did you mean 'max_steps'\?; there are .*max_steps",
        ),
        (ENOUGH + "[train]\n", "train: unknown setting"),
        ('seed = "one"\n' + ENOUGH, "seed: a whole number is needed, not 'one'"),
        ("seed = true\n" + ENOUGH, "seed: a whole number is needed, not True"),
        ("seed = 1.5\n" + ENOUGH, "seed: a whole number is needed"),
        (ENOUGH + 'decay = "steps"\n', r"optimizer\.decay: 'steps' is not one of 'linear', 'cosine'"),
        (ENOUGH + '[text]\nattributes = "title"\n', r"text\.attributes: a list of strings is needed"),
        (ENOUGH + "[joint]\ntemperature = 0\n", r"joint\.temperature: 0 is not above 0"),
        (ENOUGH + "[joint]\nbatch_size = 0\n", r"joint\.batch_size: 0 is below 1"),
        (ENOUGH + "warmup = 1.0\n", r"optimizer\.warmup: 1\.0 is not below 1"),
        (ENOUGH + "[model.settings]\nsize = [1]\n", r"model\.settings\.size: a value is needed, not \[1\]"),
        ("joint = 3\n" + ENOUGH, r"joint\.: a table is needed|joint: a table is needed"),
        ("", "optimizer: set at least one of max_epochs, max_steps, max_minutes: nothing would end stage joint"),
        ("stages = []\n" + ENOUGH, "stages: name at least one; there are .*joint"),
        ('stages = ["jont"]\n' + ENOUGH, "stages: no stage 'jont', did you mean 'joint'\\?; there are .*joint"),
        ('stages = ["joint", "joint"]\n' + ENOUGH, "stages: 'joint' is listed twice"),
        ('stages = ["residual", "joint"]\n' + ENOUGH, "stages: 'residual' comes last, or before 'hybrid': it freezes"),
        (
            ENOUGH + "[joint.optimizer]\nrate = 1\n",
            r"joint\.optimizer\.rate: unknown setting; there are .*learning_rate",
        ),
        (ENOUGH + "[joint.optimizer]\nmax_steps = 1.5\n", r"joint\.optimizer\.max_steps: a whole number is needed"),
        (ENOUGH + "[joint.validation]\nchecks = [3]\n", r"joint\.validation\.checks: a value is needed, not \[3\]"),
        ("seed = 99999999999999999999\n" + ENOUGH, "seed: 99999999999999999999 is not below 9223372036854775808"),
        (ENOUGH + "max_minutes = inf\n", r"optimizer\.max_minutes: inf is not a finite number"),
        ("seed = 2026-01-01\n" + ENOUGH, "seed: a whole number is needed, not '2026-01-01'"),
        (ENOUGH + "[pretrain]\nwords_across_borders = true\n", "now called pretrain.whole_words_cross_attributes"),
        (ENOUGH + "[pretrain]\none_domain_a_batch = true\n", "now called pretrain.single_domain_batches"),
        (ENOUGH + "[adversarial]\nalone_epochs = 2\n", "now called adversarial.warmup_epochs"),
        (ENOUGH + "gradient_checkpointing = 1\n", r"optimizer\.gradient_checkpointing: true or false is needed, not 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of(tmp_path, text)


def test_a_wrong_override_is_refused() -> None:
    with pytest.raises(InputError, match=r"'optimizer\.max_steps' is not key=value"):
        load_config(preset_path("demo"), ["optimizer.max_steps"])
    with pytest.raises(InputError, match=r"'seed' of 'seed\.x' is a setting, not a table"):
        load_config(preset_path("demo"), ["seed.x=1"])
    with pytest.raises(InputError, match=r"no preset 'dmeo', did you mean 'demo'\?; there are .*demo, "):
        preset_path("dmeo")


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"run\.toml: not TOML: .*line 1"):
        config_of(tmp_path, "seed: 1\n")
    with pytest.raises(FileFormatError, match="no such file"):
        load_config(tmp_path / "absent.toml")


def test_a_byte_order_mark_does_no_harm_and_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ENOUGH.encode())
    assert load_config(path).optimizer.max_steps == 3
    path.write_bytes(ENOUGH.encode("utf-16"))
    with pytest.raises(FileFormatError, match="the file is UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8"):
        load_config(path)
    path.write_bytes(b"device = '\xe9'\n")
    with pytest.raises(FileFormatError, match=r"not UTF-8 .*0xe9.*; convert it: iconv"):
        load_config(path)
    with pytest.raises(FileFormatError, match="is a directory; name a TOML file"):
        load_config(tmp_path)


def test_a_stored_configuration_may_have_the_names_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        ENOUGH + "[pretrain]\nwords_across_borders = true\none_domain_a_batch = true\n[adversarial]\nalone_epochs = 2\n"
    )
    config = load_stored_config(path)
    assert (config.pretrain.whole_words_cross_attributes, config.pretrain.single_domain_batches) == (True, True)
    assert config.adversarial.warmup_epochs == 2


def test_types_of_settings_are_those_that_toml_can_say() -> None:
    for entry in get_type_hints(RunConfig).values():
        assert is_dataclass(entry) or entry in (int, float, str, tuple[str, ...]) or get_origin(entry) is Literal
    assert not re.search(r"\b(True|False|None)\b", dump_config(load_config(preset_path("demo"))))
