"""The keys of a pretraining and of a fine-tuning config. Importing this imports torch; a verb does so when it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from medssml.data.shard_dataset import ShardSettings
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.trainers.precision import chosen_precision, device_type
from medssml.trainers.settings import Optim, TrainerSettings
from medssml.transforms import Transform


@dataclass(frozen=True)
class DataSettings:
    """How studies are loaded; see `medssml.data.datamodule.StudyDataModule`."""

    batch_size: int = 32
    eval_batch_size: int | None = None
    num_workers: int = 0
    balance: str | None = None
    balance_power: float = 0.5
    prepare_workers: int = 2
    quarantine_limit: float = 0.01
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "eval_batch_size": 1, "num_workers": 0, "prepare_workers": 0, "timeout_s": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"data.{name} is {value}; fix: {low} or more")
        if not 0 <= self.quarantine_limit <= 1:
            raise ValueError(f"data.quarantine_limit is {self.quarantine_limit}; fix: a share between 0 and 1")


@dataclass(frozen=True)
class PrivacySettings:
    """strict: studies are called by keyed hashes of their ids in whatever is written; see docs/privacy.md."""

    strict: bool = True


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining: a model, what its inputs go through, what is learned, and how."""

    model: MultimodalModel
    transforms: dict[str, Transform]
    objectives: list[Objective]
    optim: Optim = field(default_factory=Optim)
    trainer: TrainerSettings = field(default_factory=lambda: TrainerSettings(max_epochs=100))
    data: DataSettings = field(default_factory=DataSettings)
    shards: ShardSettings = field(default_factory=ShardSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    seed: int = 0


@dataclass(frozen=True)
class Architecture:
    """What a model trained from scratch takes from a pretraining config; the other keys are not looked at."""

    model: MultimodalModel
    transforms: dict[str, Transform]
    objectives: Any = None
    optim: Any = None
    trainer: Any = None
    data: Any = None
    shards: Any = None
    privacy: Any = None
    seed: Any = None


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning.

    freeze: none, encoders, all_but_heads, or the number of first blocks of every encoder that stay as they are.
    modality_dropout: probability that a present modality of a training study is hidden; never all of them.
    unimodal_weight: of the loss of each modality alone, beside that of all together; 0 for none.
    evidence: each modality also has weights of its own in every head, besides those of the fused vector.
    probe_first: the heads begin as a linear probe of the model as it is; with `evidence`, as a stack of probes.
    class_weights: "balanced" weighs each class by the inverse of its share. label_smoothing: 0 for none.
    """

    optim: Optim = field(default_factory=lambda: Optim(lr=3e-4, betas=(0.9, 0.999), warmup=0.1))
    trainer: TrainerSettings = field(default_factory=lambda: TrainerSettings(max_epochs=30, patience=10))
    data: DataSettings = field(default_factory=DataSettings)
    shards: ShardSettings = field(default_factory=ShardSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    freeze: int | str = "none"
    modality_dropout: float = 0.25
    unimodal_weight: float = 0.0
    evidence: bool = False
    probe_first: bool = False
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    seed: int = 0


def with_precision(config: dict[str, Any]) -> dict[str, Any]:
    """The resolved config with what "auto" means here in its place: the precision is a part of the run.

    So config.yaml, log and MLflow name it, and on a machine that would choose another one the run is not continued unseen.
    """
    trainer = config["trainer"]
    chosen = chosen_precision(trainer["precision"], device_type(trainer["device"]))
    return {**config, "trainer": {**trainer, "precision": chosen}}


def without_modalities(config: dict[str, Any], absent: Iterable[str]) -> dict[str, Any]:
    """A resolved pretraining config for a manifest in which no training study has the modalities `absent`.

    Their encoders and transforms go, and what the objectives say about them; an objective that is about an absent
    modality, or needs two where one is left, goes as a whole.

    Raises:
        ValueError: nothing is left.
    """
    gone = set(absent)
    if not gone:
        return config
    model = config["model"]["init_args"]
    left = [name for name in model["encoders"] if name not in gone]
    if not left:
        raise ValueError(
            f"no training study has any of {sorted(gone)}; fix: a manifest with files for the config's model"
        )
    fusion = model["fusion"]["init_args"]
    if "modalities" in fusion:
        fusion = {**fusion, "modalities": [name for name in fusion["modalities"] if name not in gone]}
    model = {
        **model,
        "encoders": {name: model["encoders"][name] for name in left},
        "fusion": {**model["fusion"], "init_args": fusion},
    }
    return {
        **config,
        "model": {**config["model"], "init_args": model},
        "transforms": {name: node for name, node in config["transforms"].items() if name not in gone},
        "objectives": [kept for node in config.get("objectives") or () if (kept := _objective(node, gone, len(left)))],
    }


#: Objectives that compare modalities: of one alone they learn nothing.
_OF_SEVERAL = ("CrossModalContrast", "ModalityDropoutConsistency")
#: Arguments that say how some modalities are treated; with none of them left, the objective is still about others.
_DETAILS = ("batch_norm",)


def _objective(node: dict[str, Any], gone: set[str], left: int) -> dict[str, Any] | None:
    if left < 2 and node["class_path"].rpartition(".")[2] in _OF_SEVERAL:
        return None
    arguments = {name: _purged(value, gone) for name, value in (node.get("init_args") or {}).items()}
    emptied = any(
        not value and node["init_args"][name]
        for name, value in arguments.items()
        if _lists(value) and name not in _DETAILS
    )
    if emptied or arguments.get("modality") in gone:
        return None
    return {**node, "init_args": arguments}


def _lists(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict))


def _purged(value: Any, gone: set[str]) -> Any:
    """`value` without what names an absent modality, alone or in a pair such as "ct+report"."""
    if isinstance(value, dict):
        return {name: inner for name, inner in value.items() if name not in gone}
    if isinstance(value, (list, tuple)):
        return [inner for inner in value if not (isinstance(inner, str) and gone & set(inner.split("+")))]
    return value
