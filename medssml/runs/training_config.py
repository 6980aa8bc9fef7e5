"""The keys of a pretraining and of a fine-tuning config. Importing this imports torch; a verb does so when it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Annotated, Any, Literal, TypeVar

from medssml.bounds import bounded
from medssml.config import Configured, LeftOut, Node, resolve
from medssml.data.shard_dataset import ShardSettings
from medssml.fusion.base import Fusion
from medssml.manifest.quarantine import Allowance
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.modulation import Modulation
from medssml.objectives.study_loss import StudyLoss
from medssml.obstacles.base import Obstacle
from medssml.schema import Builds, plain
from medssml.trainers.adapters import Lora
from medssml.trainers.freezing import check_freeze
from medssml.trainers.precision import chosen_precision, device_type
from medssml.trainers.settings import Optim, TrainerSettings
from medssml.transforms import Transform

#: A number that may change as a run goes on.
Ramped = Annotated[Node, Builds(Ramp)] | float
#: Modality -> its road: a list of steps, or one class that is a road.
Roads = dict[str, list[Any] | Annotated[Node, Builds(Transform)]]


@dataclass(frozen=True)
class DataSettings:
    """How studies are loaded; see `medssml.data.datamodule.StudyDataModule`.

    obstacles: what befalls the studies of training and validation, and never those of the test; see docs/obstacles.md.
    """

    batch_size: int = 32
    eval_batch_size: int | None = None
    num_workers: int = 0
    balance: str | None = None
    balance_power: float = 0.5
    prepare_workers: int = 2
    quarantine_limit: float = Allowance.share
    timeout_s: float = 300.0
    obstacles: list[Annotated[Node, Builds(Obstacle)]] = field(default_factory=list)

    @property
    def loading(self) -> dict[str, Any]:
        """What the data module is told."""
        return {name: value for name, value in vars(self).items() if name != "obstacles"}

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "eval_batch_size": 1, "num_workers": 0, "prepare_workers": 0, "timeout_s": 0}
        for name, low in least.items():
            bounded(f"data.{name}", getattr(self, name), least=low)
        bounded("data.balance_power", self.balance_power, least=0, most=1)
        bounded("data.quarantine_limit", self.quarantine_limit, least=0, most=1)


@dataclass(frozen=True)
class PrivacySettings:
    """strict: studies are called by keyed hashes of their ids in whatever is written; see docs/privacy.md."""

    strict: bool = True


@dataclass(frozen=True)
class GivenTeacher:
    """Another model that objectives may ask, as it is: the run folder or model folder `checkpoint`."""

    checkpoint: str


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining: a model, what its inputs go through, what is learned, and how; with `teacher`, from another model."""

    model: Annotated[Node, Builds(MultimodalModel)]
    transforms: Roads
    objectives: list[Annotated[Node, Builds(Objective)]]
    optim: Optim = field(default_factory=Optim)
    trainer: TrainerSettings = field(default_factory=lambda: TrainerSettings(max_epochs=100))
    data: DataSettings = field(default_factory=DataSettings)
    shards: ShardSettings = field(default_factory=ShardSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    teacher: GivenTeacher | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        bounded("seed", self.seed, least=0)
        check_modalities(self.model, self.transforms)

    def written(self) -> dict[str, Any]:
        """As config.yaml and MLflow have it."""
        return plain(self)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Architecture:
    """What a model trained from scratch takes from a pretraining config; the other keys are not looked at."""

    model: Annotated[Node, Builds(MultimodalModel)]
    transforms: Roads
    objectives: Any = None
    optim: Any = None
    trainer: Any = None
    data: Any = None
    shards: Any = None
    privacy: Any = None
    teacher: Any = None
    seed: Any = None

    def __post_init__(self) -> None:
        check_modalities(self.model, self.transforms)


@dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning.

    freeze: none, encoders, all_but_heads, or the number of first blocks of every encoder that stay as they are.
    lora: adapters of the encoders, beside which projections, fusion and heads learn and nothing else; merged when the run ends.
    modality_dropout: probability that a present modality of a training study is hidden; never all of them.
    unimodal_weight: of the loss of each modality alone; 0 for none. fused_weight: of that of all together. These three: a
        number, or a `Ramp`.
    evidence: each modality also has weights of its own in every head, besides those of the fused vector.
    probe_first: the heads begin as a linear probe of the model as it is; with `evidence`, as a stack of probes.
    presence_weights: training studies are weighed so that what is absent says nothing of the label.
    calibrate: at the end, answers are made as sure as they are right on validation studies, for each subset of modalities.
    class_weights: "balanced" weighs each class by the inverse of its share. label_smoothing: 0 for none.
    fusion: in the place of that of the model, whose modalities and width it has: see `medssml.runs.fusion_exchange`.
    unlabelled: training studies without a label take part for `objectives`, half of each batch, which is twice as large.
    loss: of each labelled study, in the place of the cross-entropy. objectives: learned beside the labels.
    modulation: of the encoders' gradients, where one modality answers better than the others. All three: docs/remedies.md.
    teacher: another run, whose model objectives such as UnimodalTeachers may ask.
    """

    optim: Optim = field(default_factory=lambda: Optim(lr=3e-4, betas=(0.9, 0.999), warmup=0.1))
    trainer: TrainerSettings = field(default_factory=lambda: TrainerSettings(max_epochs=30, patience=10))
    data: DataSettings = field(default_factory=DataSettings)
    shards: ShardSettings = field(default_factory=ShardSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    fusion: Annotated[Node, Builds(Fusion, handed_in=("modalities", "dim", "fusion"))] | None = None
    freeze: int | str = "none"
    lora: Lora | None = None
    modality_dropout: Ramped = 0.25
    unimodal_weight: Ramped = 0.0
    fused_weight: Ramped = 1.0
    evidence: bool = False
    probe_first: bool = False
    class_weights: Literal["balanced"] | None = None
    presence_weights: bool = False
    calibrate: bool = False
    label_smoothing: float = 0.0
    unlabelled: bool = False
    loss: Annotated[Node, Builds(StudyLoss)] | None = None
    modulation: Annotated[Node, Builds(Modulation)] | None = None
    objectives: list[Annotated[Node, Builds(Objective)]] = field(default_factory=list)
    teacher: GivenTeacher | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        bounded("seed", self.seed, least=0)
        for end in _ends(self.modality_dropout):
            bounded("modality_dropout", end, least=0, below=1)
        for key in ("unimodal_weight", "fused_weight"):
            for end in _ends(getattr(self, key)):
                bounded(key, end, least=0, below=inf)
        if max(*_ends(self.unimodal_weight), *_ends(self.fused_weight)) == 0:
            raise ValueError("unimodal_weight and fused_weight are 0, and nothing is learned; fix: one of them above 0")
        bounded("label_smoothing", self.label_smoothing, least=0, below=1)
        if self.loss is not None and self.label_smoothing > 0:
            raise ValueError(
                "label_smoothing is of the cross-entropy, and there is a loss; fix: leave one of the two out"
            )
        check_freeze(self.freeze)
        if self.fusion is not None and self.freeze == "all_but_heads":
            raise ValueError(
                "freeze all_but_heads keeps the fusion as it is, and there is a new one; fix: freeze: encoders, or no fusion"
            )
        if self.lora is not None and self.freeze != "none":
            raise ValueError(f"lora freezes the encoders, and freeze is {self.freeze}; fix: leave freeze out")
        if self.teacher is not None and not self.objectives:
            raise ValueError(
                "a teacher teaches nothing by labels alone; fix: objectives: [{class_path: UnimodalTeachers}]"
            )
        if self.unlabelled and not self.objectives:
            raise ValueError(
                "unlabelled studies teach nothing by labels alone; fix: objectives: [{class_path: PseudoLabels}]"
            )
        if self.unlabelled and self.data.balance is not None:
            raise ValueError(
                f"unlabelled mixes the batches, and so does data.balance: {self.data.balance}; fix: leave one of the two out"
            )


@dataclass(frozen=True)
class Finetuning(FinetuneConfig):
    """A fine-tuning config with what the command line and the study table say.

    tasks: what is learned. labels: share of the labelled training subjects.
    start: what it begins with, "scratch" or a hash of the weights. architecture: from scratch, the model and its transforms.
    targets: kinds and classes of tasks, as they were given.
    """

    tasks: Sequence[str] = ()
    labels: float = 1.0
    start: str = "scratch"
    targets: Sequence[str] = ()
    architecture: Architecture | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture is not None:
            refuse_untrained(self.lora)

    def written(self) -> dict[str, Any]:
        """As config.yaml and MLflow have it."""
        found = plain(self)
        architecture, targets = found.pop("architecture"), found.pop("targets")
        first = {name: architecture[name] for name in ("model", "transforms")} if architecture else {}
        return {**first, **found, **({"targets": targets} if targets else {})}


@dataclass(frozen=True)
class Transferring(Finetuning):
    """A fine-tuning of a student of one modality, with or without a teacher.

    student: the modality. method: of the transfer. weight: of it, beside labels. source: what the teacher is shown.
    taught_by: a hash of the teacher's weights. arm: which of the two students of a seed; none of the whole. seeds: pairs of
    students. prompts: task -> class -> sentences that name it, where a method draws to them.
    """

    student: str = ""
    method: str = ""
    weight: float = 1.0
    source: Sequence[str] = ()
    taught_by: str = ""
    seeds: int = 1
    arm: str = ""
    prompts: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "scratch":
            refuse_untrained(self.lora)


def refuse_untrained(lora: Lora | None) -> None:
    """Refuses adapters of encoders that were never trained.

    Raises:
        ValueError: there are some.
    """
    if lora is not None:
        raise ValueError(
            "lora adapts encoders that were trained, and these are new; fix: --checkpoint RUN, or leave lora out"
        )


#: A training, with or without labels.
Training = PretrainConfig | Finetuning
C = TypeVar("C", PretrainConfig, Finetuning)
A = TypeVar("A", PretrainConfig, Architecture)


def _ends(value: Ramped) -> tuple[float, ...]:
    """The values between which a number stays."""
    if not isinstance(value, Mapping):
        return (value,)
    return tuple(value["init_args"][end] for end in ("start", "end"))


def check_modalities(model: Node, transforms: Mapping[str, Any]) -> None:
    """Refuses an encoder that no transform gives a study, and a transform whose studies no encoder sees.

    Args:
        model: its node. One of a class of the user's own, which names no encoders, is not looked at.
        transforms: by modality.

    Raises:
        ValueError: with the modalities.
    """
    encoders = (model.get("init_args") or {}).get("encoders")
    if not isinstance(encoders, Mapping):
        return
    blind = [name for name in encoders if name not in transforms]
    unread = [name for name in transforms if name not in encoders]
    if blind:
        raise ValueError(
            f"encoder of {', '.join(blind)} without a transform: no study would reach it; fix: transforms.{blind[0]}, or "
            f"leave the encoder out"
        )
    if unread:
        raise ValueError(
            f"transform of {', '.join(unread)} without an encoder: nothing would read it; fix: model.encoders.{unread[0]}, "
            f"or leave the transform out"
        )


def with_precision(config: C) -> C:
    """The config with what "auto" means here in its place: the precision is a part of the run.

    So config.yaml, log and MLflow name it, and on a machine that would choose another one the run is not continued unseen.
    """
    chosen = chosen_precision(config.trainer.precision, device_type(config.trainer.device))
    return replace(config, trainer=replace(config.trainer, precision=chosen))


def for_modalities(config: A, left: Sequence[str], plugins: Collection[str] = ()) -> tuple[A, list[str]]:
    """A pretraining config, or an architecture, for a manifest whose training studies have no modality but those of `left`.

    Each class says what of its arguments names modalities, and what it cannot do without (`Configured.restricted_to`).

    Returns:
        the config, and a line for each part that was left out or made smaller.

    Raises:
        ValueError: nothing is left to encode, or to learn.
    """
    gone = [name for name in config.transforms if name not in left]
    if not gone:
        return config, []
    try:
        model = _restricted(config.model, left, plugins)
        fusion = _restricted(model["init_args"]["fusion"], left, plugins)
    except LeftOut as error:
        raise ValueError(f"the model {error}; fix: a manifest with files for it") from None
    objectives, remarks = [], []
    for node in config.objectives or ():
        name = node["class_path"].rpartition(".")[2]
        try:
            objectives.append(_restricted(node, left, plugins))
        except LeftOut as error:
            remarks.append(f"{name} is left out: it {error}")
            continue
        changed = [key for key, value in objectives[-1]["init_args"].items() if value != node["init_args"].get(key)]
        remarks += [f"{name}: {key} is {objectives[-1]['init_args'][key]} without {', '.join(gone)}" for key in changed]
    if config.objectives and not objectives:
        raise ValueError(
            f"nothing is left to learn: {'; '.join(remarks)}; fix: another config, or studies that have it"
        )
    model = {**model, "init_args": {**model["init_args"], "fusion": fusion}}
    transforms = {name: node for name, node in config.transforms.items() if name in left}
    return replace(config, model=model, transforms=transforms, objectives=objectives), remarks


def _restricted(node: Node, left: Sequence[str], plugins: Collection[str]) -> Node:
    cls = resolve(str(node["class_path"]), plugins)
    arguments = dict(node.get("init_args") or {})
    if not issubclass(cls, Configured):
        return node
    return {**node, "init_args": cls.restricted_to(arguments, left)}
