"""A config file: what it may say, and what a wrong one is told."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from medssml import config
from medssml.config import ConfigError, Configured, build, describe, load_config, resolved_config
from medssml.schema import Builds, plain


class Part(Configured):
    """What every part of this test derives from."""


class Encoder(Part):
    """A part with the kinds of argument that constructors have."""

    def __init__(
        self, dim: int, rate: float = 0.5, size: tuple[int, int, int] = (1, 2, 3), kind: Literal["2d", "3d"] = "2d"
    ) -> None:
        self.dim, self.rate, self.size, self.kind = dim, rate, size, kind


class Loss(Part):
    """A part that is handed another one which is no config."""

    _handed_in = ("model",)

    def __init__(self, model: Any, *, weight: float = 1.0, mask_ratio: float = 0.75) -> None:
        self.model, self.weight, self.mask_ratio = model, weight, mask_ratio


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    steps: int = 100
    warmup: int = 10

    def __post_init__(self) -> None:
        if self.warmup > self.steps:
            raise ValueError(f"warmup of {self.warmup} steps is longer than the run of {self.steps}; fix: lower it")


@dataclass(frozen=True)
class Schema:
    encoders: dict[str, Encoder]
    objectives: list[Loss] = field(default_factory=list)
    optim: Optim = field(default_factory=Optim)
    freeze: int | str = "none"
    devices: int | None = None


GOOD = """\
encoders:
  ct:
    class_path: Encoder
    init_args:
      dim: 8
      rate: 1e-3
objectives:
  - class_path: Loss
    init_args: {mask_ratio: 0.5}
optim: {lr: 2e-4}
"""


@pytest.fixture(autouse=True)
def short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = {"Encoder": Encoder, "Loss": Loss}
    original = config.resolve

    def resolve(class_path: str, plugins: Any = ()) -> type:
        return classes[class_path] if class_path in classes else original(class_path, plugins)

    monkeypatch.setattr(config, "resolve", resolve)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(text: str, overrides: tuple[str, ...] = ()) -> Schema:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, Schema, overrides)

    return load


def refused(load: Any, text: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, overrides)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_good_config_is_resolved_with_every_default(load: Any) -> None:
    got = load(GOOD)
    arguments = got.encoders["ct"]["init_args"]
    assert arguments == {"dim": 8, "rate": 1e-3, "size": [1, 2, 3], "kind": "2d"}
    assert got.objectives[0]["init_args"] == {"mask_ratio": 0.5, "weight": 1.0}
    assert got.optim == Optim(lr=2e-4, steps=100, warmup=10)
    assert got.freeze == "none" and got.devices is None


def test_the_resolved_config_builds_and_describes_itself(load: Any) -> None:
    node = load(GOOD).encoders["ct"]
    encoder = build(node, Encoder)
    assert encoder.dim == 8 and encoder.rate == 1e-3
    assert describe(encoder)["init_args"] == node["init_args"]


@pytest.mark.parametrize(
    ("wrong", "right", "line", "words"),
    [
        ("mask_rato: 0.5", "mask_ratio: 0.5", 9, ["'mask_rato'", "Loss", "did you mean 'mask_ratio'?"]),
        ("optimm: ", "optim: ", 10, ["'optimm'", "did you mean 'optim'?"]),
        ("dim: eight", "dim: 8", 5, ["encoders.ct.init_args.dim", "an integer", "'eight'"]),
        ("dim: 8.5", "dim: 8", 5, ["an integer", "8.5"]),
        ("dim: true", "dim: 8", 5, ["an integer", "True"]),
        ("rate: fast", "rate: 1e-3", 6, ["a number", "'fast'"]),
        ("rate: 1\n      kind: 4d", "rate: 1e-3", 7, ["'2d', '3d'", "'4d'"]),
        ("rate: 1\n      size: [1, 2]", "rate: 1e-3", 7, ["a list of 3"]),
        ("rate: 1\n      rate: 2", "rate: 1e-3", 7, ["given twice", "line 6"]),
        ("class_path: Encodr", "class_path: Encoder", 3, ["no class 'Encodr'"]),
        ("class_path: Loss", "class_path: Encoder", 3, ["Loss is no Encoder"]),
        ("arguments: 3\n    init_args:", "init_args:", 4, ["unknown key 'arguments'", "init_args"]),
        ("optim: {steps: 5}", "optim: {lr: 2e-4}", 10, ["warmup of 10 steps is longer than the run of 5"]),
        ("devices: two\noptim: {lr: 1}", "optim: {lr: 2e-4}", 10, ["'devices'", "an integer", "'two'"]),
        ("rate: !!python/object:os.system 1", "rate: 1e-3", 6, ["refused", "plain values"]),
    ],
)
def test_a_wrong_config_is_told_the_line_and_the_way_out(
    load: Any, wrong: str, right: str, line: int, words: list
) -> None:
    message = refused(load, GOOD.replace(right, wrong, 1))
    assert f"x.yaml:{line}: " in message, message
    for word in words:
        assert word in message, message


def test_a_missing_key_says_what_is_expected(load: Any) -> None:
    assert "'encoders'" in refused(load, "optim: {lr: 1}")
    assert "'dim' of Encoder is missing; fix: give it an integer" in refused(load, GOOD.replace("dim: 8", ""))


def test_the_command_line_sets_any_key(load: Any) -> None:
    got = load(
        GOOD, ("optim.lr=1e-5", "objectives.0.weight=2", "encoders.ct.size=[4, 5, 6]", "devices=2", "optim.steps=50")
    )
    assert got.optim == Optim(lr=1e-5, steps=50, warmup=10)
    assert got.objectives[0]["init_args"]["weight"] == 2.0
    assert got.encoders["ct"]["init_args"]["size"] == [4, 5, 6]
    assert got.devices == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objectives.0.mask_rato=1", "did you mean 'mask_ratio'?"),
        ("optim.lr=fast", "a number"),
        ("objectives.3.weight=1", "a list of 1"),
        ("optim.lr", "key=value"),
        ("optim.lr.x=1", "plain value"),
    ],
)
def test_a_wrong_override_names_itself(load: Any, override: str, words: str) -> None:
    message = refused(load, GOOD, (override,))
    assert message.startswith(f"--set {override}: ") and words in message, message


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "just text", "a: b: c", "? [1]\n: 2", "\x00"])
def test_what_is_no_config_is_refused(load: Any, text: str) -> None:
    assert "x.yaml" in refused(load, text)


def test_aliases_cannot_blow_a_small_file_up(load: Any) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "aliases" in refused(load, bomb)
    assert "aliases" in refused(load, "a: &a [*a]")


def test_scalars_are_those_of_yaml_1_2(load: Any, tmp_path: Path) -> None:
    path = tmp_path / "scalars.yaml"
    path.write_text("{a: no, b: 1:30, c: 2024-01-01, d: 1e-3, e: 007, f: .5, g: ~, h: '1', i: .inf, j: 5.}")
    assert vars(load_config(path, make_dataclass("Scalars", "abcdefghij"))) == {
        "a": "no", "b": "1:30", "c": "2024-01-01", "d": 1e-3, "e": 7, "f": 0.5, "g": None, "h": "1", "i": float("inf"), "j": 5.0,
    }  # fmt: skip


def test_missing_and_oversized_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml", Schema)
    large = tmp_path / "large.yaml"
    large.write_text("a: " + "x" * (2 << 20))
    with pytest.raises(ConfigError, match="at most"):
        load_config(large, Schema)


def test_a_class_from_elsewhere_needs_its_package_named() -> None:
    with pytest.raises(KeyError, match="--plugin os"):
        config.resolve("os.Popen", ())
    assert config.resolve("pathlib.PurePath", ("pathlib",)).__name__ == "PurePath"


def test_a_list_of_nodes_is_told_what_is_wrong_inside_it(tmp_path: Path) -> None:
    """As of a road: where a list or one class may stand, the list's own fault is said, with its line."""
    good = "transforms:\n  ct:\n    - {class_path: LoadCTd, init_args: {keys: ct}}\n"
    schema = make_dataclass("Roads", [("transforms", dict[str, list[Any] | Part])])
    path = tmp_path / "x.yaml"
    for wrong, words in (
        ("{keys: ct, sise: [1, 1, 1]}", "x.yaml:3: unknown key 'sise' in LoadCTd; did you mean 'size'?"),
        ("{keys: 3}", "'transforms.ct.0.init_args.keys': expected text or a list of text"),
    ):
        path.write_text(good.replace("{keys: ct}", wrong))
        with pytest.raises(ConfigError) as caught:
            load_config(path, schema)
        assert words in str(caught.value), str(caught.value)
    path.write_text(good + "    - {class_path: monai.transforms.LoadImaged, init_args: {keys: ct}}\n")
    with pytest.raises(
        ConfigError, match=r"x\.yaml:4: class 'monai\.transforms\.LoadImaged' of MONAI: only classes that map"
    ):
        load_config(path, schema)
    path.write_text(good + "    - {class_path: monai.transforms.RandFlipd, init_args: {keys: ct, prob: 1.0}}\n")
    assert load_config(path, schema).transforms["ct"][1]["init_args"] == {"keys": "ct", "prob": 1.0}


def test_a_word_that_looks_like_a_number_is_that_word() -> None:
    from medssml.runs.training_config import FinetuneConfig

    for said in ("32", "'32'"):
        assert load_config(None, FinetuneConfig, [f"trainer.precision={said}"]).trainer.precision == "32"
    with pytest.raises(ConfigError, match="expected one of 'auto', '32', 'bf16-mixed', received 16"):
        load_config(None, FinetuneConfig, ["trainer.precision=16"])


def test_one_key_of_a_section_that_the_file_does_not_have_leaves_its_other_defaults() -> None:
    from medssml.runs.training_config import FinetuneConfig

    whole = load_config(None, FinetuneConfig)
    one = load_config(None, FinetuneConfig, ["trainer.device=cpu"])
    assert one == replace(whole, trainer=replace(whole.trainer, device="cpu"))


def test_a_checked_config_is_an_object_and_writes_the_values_that_it_was_made_of(tmp_path: Path) -> None:
    fields = [
        ("encoder", Annotated[dict[str, Any], Builds(Encoder)]),
        ("betas", tuple[float, float]),
        ("optim", Optim | None, field(default_factory=Optim)),
        ("other", Optim | None, None),
    ]
    schema, path = make_dataclass("Sections", fields), tmp_path / "x.yaml"
    path.write_text("encoder: {class_path: Encoder, init_args: {dim: 8}}\nbetas: [0.9, 1]\noptim: {steps: 20}\n")
    got = load_config(path, schema)
    assert got.optim == Optim(steps=20) and got.other is None and got.betas == (0.9, 1.0)
    assert build(got.encoder).dim == 8
    assert plain(got) == resolved_config(path, schema)[0]
    # A field that holds a node is checked, and asked for, as the class that is built of it.
    with pytest.raises(
        ConfigError, match="'encoder' of Sections is missing; fix: give it class_path and init_args of a Enc"
    ):
        load_config(None, schema)
    with pytest.raises(ConfigError, match="Loss is no Encoder"):
        load_config(path, schema, ["encoder={class_path: Loss}"])
