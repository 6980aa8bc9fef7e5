"""MultimodalModel: one encoder per modality, one fusion operator, one head per task."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded, Fused, Inputs, restrict, row_count
from medssml.checkpoint import CheckpointError, load_weights, model_folder, read_config, read_weights, write_checkpoint
from medssml.config import Configured, LeftOut, build, describe, resolve
from medssml.encoders.base import as_encoded
from medssml.encoders.chunks import in_chunks
from medssml.encoders.descriptor import Descriptor, Descriptors, widened
from medssml.encoders.heads import Head, Heads, PatternScale
from medssml.fusion.base import Fusion
from medssml.manifest.labels import Label
from medssml.standardise import Standardise

__all__ = ["MultimodalModel", "Task"]

#: Folder of the tokenizer, in a model folder.
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Task(Label):
    """What a head predicts: kind "binary", "multiclass" with n_classes or its classes, or "regression".

    Args:
        evidence: each modality also has weights of its own in the head.
        mean, sd: of the training targets of a regression, in their unit.
        counts: split -> class -> labelled studies; of a regression under the class "labelled".
        calibrated: its answers are scaled by what was seen; see `MultimodalModel.calibrate`.
    """

    evidence: bool = False
    mean: float = 0.0
    sd: float = 1.0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict, compare=False)
    calibrated: bool = field(default=False, compare=False)

    @property
    def label(self) -> Label:
        """What the cells of a table must be, for this head."""
        return Label(self.kind, self.n_classes, self.classes, self.unit)

    @property
    def words(self) -> str:
        """What is predicted, in a line."""
        if self.kind == "regression":
            return f"regression{self.unit and f' in {self.unit}'}, training mean {self.mean:.6g}, sd {self.sd:.6g}"
        return f"{self.kind}, " + (
            f"positive is {self.classes[1]}" if self.kind == "binary" else f"classes {', '.join(self.classes)}"
        )


class MultimodalModel(Configured, nn.Module):
    """encode each modality -> standardise -> project to the width of the fusion -> fuse what is present -> one head per task.

    Args:
        encoders: modality -> `Encoder`, or any module with an attribute `dim`, its output width, that returns (n, dim),
            (n, N, dim) or `Encoded`.
        fusion: operator over exactly these modalities; its order of the names is the order of the columns. In a config it need
            not name them: they are those of the encoders.
        tasks: name -> Task, or its arguments as a dict.
        descriptors: modality -> what is measured of it by hand; the vector that is pooled begins with it.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        tasks: Mapping[str, Task | Mapping[str, object]] | None = None,
        descriptors: Mapping[str, Descriptor] | None = None,
    ) -> None:
        super().__init__()
        if set(encoders) != set(fusion.modalities):
            raise ValueError(
                f"encoders for {sorted(encoders)}, but fusion of {sorted(fusion.modalities)}; make them equal"
            )
        for name, encoder in encoders.items():
            if not isinstance(getattr(encoder, "dim", None), int):
                raise ValueError(f"encoder of {name}: {type(encoder).__name__} has no `dim`, an int, its output width")
        self.modalities = tuple(fusion.modalities)
        self.encoders = nn.ModuleDict({name: encoders[name] for name in self.modalities})
        self.descriptors = Descriptors(descriptors)
        if unread := sorted(set(self.descriptors) - set(encoders)):
            raise ValueError(f"descriptors of {', '.join(unread)}, which have no encoder; fix: leave them out")
        widths = {name: cast(int, encoders[name].dim) + self.descriptors.width(name) for name in self.modalities}
        self.standardise = nn.ModuleDict({m: Standardise(w, self.descriptors.width(m)) for m, w in widths.items()})
        self.project = nn.ModuleDict({name: nn.Linear(width, fusion.dim) for name, width in widths.items()})
        self.fusion = fusion
        self.heads = Heads()
        self.kept = nn.ModuleDict()
        self.tasks: dict[str, Task] = {}
        for name, task in (tasks or {}).items():
            self.add_task(name, task)

    @classmethod
    def completed(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """A fusion of medssml that names no modalities joins those of the encoders; see `Configured.completed`."""
        fusion, encoders = arguments.get("fusion"), arguments.get("encoders")
        if not isinstance(fusion, Mapping) or not isinstance(encoders, Mapping):
            return arguments
        stated = fusion.get("init_args") or {}
        if not isinstance(stated, Mapping) or "modalities" in stated:
            return arguments
        try:
            accepted = inspect.signature(resolve(str(fusion.get("class_path")))).parameters
        except (
            KeyError
        ):  # a class of the user's own, whose arguments are its own, or one that whoever builds it refuses
            return arguments
        if "modalities" not in accepted:
            return arguments
        return {**arguments, "fusion": {**fusion, "init_args": {"modalities": list(encoders), **stated}}}

    @property
    def dim(self) -> int:
        """D of the fused vector."""
        return self.fusion.dim

    def add_task(self, name: str, task: Task | Mapping[str, object]) -> None:
        """Adds a head for the task `name`, or nothing where it has the same one already.

        Raises:
            ValueError: a different task has this name.
        """
        wanted = task if isinstance(task, Task) else Task(**task)  # type: ignore[arg-type]
        if self.tasks.get(name, wanted) != wanted:
            raise ValueError(
                f"task {name!r} is {self.tasks[name].words} already, not {wanted.words}; give it another name"
            )
        if name in self.tasks:
            return
        self.tasks[name] = wanted
        evidence = self.modalities if wanted.evidence else ()
        head = Head(self.dim, wanted.kind, wanted.n_classes, evidence, wanted.mean, wanted.sd)
        if wanted.calibrated:
            head.calibration = PatternScale(len(self.modalities), head.linear.out_features)
        self.heads[name] = head.to(next(self.project.parameters()).device)
        self._arguments["tasks"] = {key: asdict(value) for key, value in self.tasks.items()}

    def calibrate(self, name: str, scale: Tensor, shift: Tensor) -> None:
        """Scales the answers of a task by what was seen, from now on; training goes on without (`uncalibrate`).

        Args:
            name: a binary or multiclass task.
            scale: (2^M,), by the bits of what was seen. shift: (2^M, K), K = 1 of a binary task.

        Raises:
            KeyError: no such task. ValueError: of other shapes, or a regression.
        """
        head, task = self.heads[name], self.tasks[name]
        outputs = head.linear.out_features
        subsets = 2 ** len(self.modalities)
        if task.kind == "regression":
            raise ValueError(f"{name} is a regression, whose answers are no probabilities; fix: leave it out")
        if scale.shape != (subsets,) or shift.shape != (subsets, outputs):
            raise ValueError(
                f"{name}: scale {tuple(scale.shape)} and shift {tuple(shift.shape)}; fix: ({subsets},) and ({subsets}, {outputs})"
            )
        head.calibration = PatternScale(len(self.modalities), outputs).to(head.linear.weight.device)
        head.calibration.scale.copy_(scale)
        head.calibration.shift.copy_(shift)
        self._set_task(name, replace(task, calibrated=True))

    def uncalibrate(self, name: str) -> None:
        """Leaves the answers of a task as its head gives them.

        Raises:
            KeyError: no such task.
        """
        self.heads[name].calibration = None
        self._set_task(name, replace(self.tasks[name], calibrated=False))

    def _set_task(self, name: str, task: Task) -> None:
        self.tasks[name] = task
        self._arguments["tasks"] = {key: asdict(value) for key, value in self.tasks.items()}

    def drop_task(self, name: str) -> None:
        """Takes a task and its head away.

        Raises:
            KeyError: no such task.
        """
        del self.tasks[name], self.heads[name]
        self._arguments["tasks"] = {key: asdict(value) for key, value in self.tasks.items()}

    def exchange_fusion(self, fusion: Fusion) -> None:
        """Joins the modalities by another fusion from now on. What read the fused vector, heads and kept parts, leaves.

        Raises:
            ValueError: it joins other modalities, or is of another width than the projections.
        """
        if (fusion.modalities, fusion.dim) != (self.modalities, self.dim):
            raise ValueError(
                f"{type(fusion).__name__} joins {', '.join(fusion.modalities)} in width {fusion.dim}, and the model gives "
                f"{', '.join(self.modalities)} in width {self.dim}; fix: leave modalities and dim out"
            )
        for name in list(self.tasks):
            self.drop_task(name)
        self.kept = nn.ModuleDict()
        self.fusion = self._arguments["fusion"] = fusion

    def exchange_encoder(self, modality: str, encoder: nn.Module) -> None:
        """Puts another encoder in the place of that of `modality`; what it gives is standardised and projected anew.

        Raises:
            KeyError: no such modality.
        """
        width, project = cast(int, encoder.dim) + self.descriptors.width(modality), self.project[modality]
        self.encoders[modality] = encoder
        self.standardise[modality] = Standardise(width, self.descriptors.width(modality))
        self.project[modality] = nn.Linear(width, self.dim)
        for part in (self.standardise[modality], self.project[modality]):
            part.to(next(project.parameters()))
        self._arguments["encoders"] = {**self._arguments["encoders"], modality: encoder}

    def keep(self, parts: Mapping[str, nn.Module]) -> None:
        """Takes parts of objectives into the model's folder: a space in which to retrieve, a decoder that writes.

        Raises:
            TypeError: one whose class is not `Configured`, so that no folder could name it.
        """
        for name, part in parts.items():
            if not isinstance(part, Configured):
                raise TypeError(f"{name} is a {type(part).__name__}; fix: derive what is kept from Configured")
        self.kept = nn.ModuleDict(parts)

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`; the fusion is restricted by its own class."""
        encoders = {name: node for name, node in arguments["encoders"].items() if name in left}
        if not encoders:
            raise LeftOut(f"needs one of {', '.join(arguments['encoders'])}")
        described = arguments.get("descriptors") or {}
        beside = {"descriptors": {name: node for name, node in described.items() if name in left}} if described else {}
        return {**arguments, "encoders": encoders, **beside}

    def align(self, batch: Batch) -> Batch:
        """The batch with the model's modalities as columns: one that it lacks is absent, one more is left out."""
        if batch.modalities == self.modalities:
            return batch
        absent = batch.present.new_zeros(len(batch))
        columns = [batch.present[:, batch.column(m)] if m in batch.modalities else absent for m in self.modalities]
        return replace(
            batch,
            inputs={m: value for m, value in batch.inputs.items() if m in self.modalities},
            content={m: value for m, value in batch.content.items() if m in self.modalities},
            present=torch.stack(columns, dim=1),
            modalities=self.modalities,
            views=tuple(self.align(view) for view in batch.views),
        )

    def encode_raw(
        self, batch: Batch, keep: Mapping[str, Tensor] | None = None, layers: int = 0, chunk: int | None = None
    ) -> dict[str, Encoded]:
        """Modality -> what its encoder gives for the studies that have it; a modality without rows is left out.

        Args:
            batch: of `modalities`; see `align`.
            keep: modality -> (n_m, K) int64 tokens to compute; all of a modality that is not named.
            layers: how many of the last blocks' outputs each encoder gives along.
            chunk: studies that pass an encoder at a time; see `in_chunks`.
        """
        out, keep = {}, keep or {}
        for name in self.modalities:
            inputs = batch.inputs.get(name)
            if inputs is not None and row_count(inputs) > 0:
                part = in_chunks(partial(_encoded, self.encoders[name], layers), inputs, keep.get(name), chunk)
                out[name] = self.descriptors.beside(name, part, inputs, whole=name not in keep)
        return out

    def projected(self, raw: Mapping[str, Encoded]) -> dict[str, Encoded]:
        """The same with tokens and pooled in the width of the fusion."""
        return {name: self._projected(name, part) for name, part in raw.items()}

    def _projected(self, name: str, part: Encoded) -> Encoded:
        standardise, project = self.standardise[name], self.project[name]
        tokens = widened(part.tokens, part.pooled.shape[-1])
        return Encoded(project(standardise(tokens)), part.mask, project(standardise(part.pooled)), part.layers)

    def encode(self, batch: Batch, chunk: int | None = None) -> dict[str, Encoded]:
        """Modality -> projected tokens (n_m, N, D) and pooled (n_m, D) of the studies that have it; chunk: see `encode_raw`."""
        raw = self.encode_raw(batch, chunk=chunk)
        if self.training:
            # Every rank, each modality, in the same order: also one that no study of this rank has.
            for name, layer in self.standardise.items():
                cast(Standardise, layer).follow(raw[name].pooled if name in raw else None)
        return self.projected(raw)

    def fuse(self, encoded: Mapping[str, Encoded], present: Tensor, within: Tensor | None = None) -> Fused:
        """Fuses; no encoder runs.

        Args:
            encoded: from `encode`.
            present: (B, M) bool, columns in the order of `modalities`: what `encoded` holds. See `align`.
            within: (B, M) bool, the part of it that may be seen; None for all.
        """
        parts, seen = dict(encoded), present
        if within is not None:
            parts, seen = restrict(parts, present, within, self.modalities), within
        fused: Fused = self.fusion(parts, seen)
        return fused._replace(parts=fused.parts or parts, present=seen)

    @property
    def begun(self) -> bool:
        """Whether vectors have the scale that training gives them: every modality was in a batch of it."""
        return all(int(cast(Standardise, layer).batches) > 0 for layer in self.standardise.values())

    def fit_descriptors(self, studies: Iterable[Batch]) -> None:
        """Fits what nothing was fitted to yet to all training studies (`Descriptor`); else nothing is read."""
        self.descriptors.fit(self.align(batch) for batch in studies)

    def fit_fusion(self, studies: Iterable[Batch]) -> None:
        """Hands what all training studies show to a fusion that fits something to them (`Fusion.fit`); else nothing is encoded.

        Nor before the first step, when vectors are still in another scale (`begun`).
        """
        if self.begun and type(self.fusion).fit is not Fusion.fit:
            aligned = (self.align(batch) for batch in studies)
            self.fusion.fit((self.encode(batch), batch.present) for batch in aligned)

    def predict_from(self, fused: Fused) -> dict[str, Tensor]:
        """Task -> (B,) or (B, K) logits."""
        return {name: head(fused) for name, head in self.heads.items()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> (B,) or (B, K) logits of the studies of `batch`."""
        batch = self.align(batch)
        return self.predict_from(self.fuse(self.encode(batch), batch.present))

    def zero_touch(self, loss: Tensor) -> Tensor:
        """The same loss, on which every parameter depends with gradient zero.

        In a batch that lacks a modality its encoder takes no part; data-parallel training waits for every parameter.
        """
        touched = torch.stack([p.reshape(-1)[0].float() for p in self.parameters() if p.requires_grad])
        return loss + 0.0 * touched.sum().to(loss.dtype)

    def save(
        self, folder: str | Path, transforms: Mapping[str, Any] | None = None, card: Mapping[str, str] | None = None
    ) -> Path:
        """Writes config.json, model.safetensors and a model card; a second save replaces the first.

        Args:
            folder: made where it is not there.
            transforms: modality -> the transform that its inputs went through; its tokenizer is saved along.
            card: heading -> text, further sections of the model card. No path, no id.

        Raises:
            TypeError: a part that no config can name.
        """
        from medssml import __version__

        folder = Path(folder)
        node = describe(self)
        node["init_args"].pop("tasks", None)
        config = {
            "medssml": __version__,
            "modalities": list(self.modalities),
            "tasks": {name: asdict(task) for name, task in self.tasks.items()},
            "model": node,
            "kept": {name: describe(part) for name, part in self.kept.items()},
            "transforms": {name: _saved_transform(value, folder) for name, value in (transforms or {}).items()},
        }
        write_checkpoint(folder, config, self.state_dict(), model_card(self, card or {}))
        return folder

    @classmethod
    def load(cls, folder: str | Path, plugins: Collection[str] = ()) -> MultimodalModel:
        """The model of a run folder or model folder, on the CPU, in evaluation mode.

        Args:
            plugins: packages outside medssml that its classes may come from.

        Raises:
            CheckpointError: a pickle, damaged, of another format, or weights that do not fit.
        """
        folder = model_folder(folder)
        config = read_config(folder)
        try:
            model = build(config["model"], MultimodalModel, plugins=plugins, tasks=config.get("tasks", {}))
            model.keep({name: build(part, plugins=plugins) for name, part in config.get("kept", {}).items()})
        except (KeyError, TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            fix = "" if "fix:" in str(reason) else "; fix: load it with the version that wrote it"
            raise CheckpointError(f"the model in {folder} cannot be built: {reason}{fix}") from error
        load_weights(model, read_weights(folder), str(folder))
        return model.eval()


def _encoded(encoder: nn.Module, layers: int, inputs: Inputs, keep: Tensor | None) -> Encoded:
    """What an encoder gives. It is told nothing beside its inputs as a rule, so that a plain module of one argument serves."""
    options: dict[str, Any] = {"layers": layers} if layers else {}
    return as_encoded(encoder(inputs, **options if keep is None else {**options, "keep": keep}))


def _saved_transform(transform: Any, folder: Path) -> Any:
    """The nodes of a road; a tokenizer goes into the folder, so that its node names no place outside it."""
    described = describe(transform)
    steps = getattr(transform, "steps", [transform])
    for step, node in zip(steps, described if isinstance(described, list) else [described], strict=True):
        if hasattr(step, "save_tokenizer"):
            step.save_tokenizer(folder / TOKENIZER)
            node["init_args"]["tokenizer"] = TOKENIZER
    return described


def model_card(model: MultimodalModel, sections: Mapping[str, str]) -> str:
    """README.md of a model folder, in Markdown: what the model takes, gives, and is not for."""
    encoders = "\n".join(
        f"| {name} | {type(encoder).__name__} | {sum(p.numel() for p in encoder.parameters()):,} |"
        for name, encoder in model.encoders.items()
    )
    tasks = "\n".join(f"- {name}: {task.words}" for name, task in model.tasks.items())
    total = sum(p.numel() for p in model.parameters())
    further = "".join(f"\n## {heading}\n\n{text.strip()}\n" for heading, text in sections.items())
    return f"""# medssml model of {", ".join(model.modalities)}

Takes any subset of its modalities and gives one embedding of {model.dim} numbers per study, and the tasks below.

| modality | encoder | parameters |
|---|---|---|
{encoders}

Fusion: {type(model.fusion).__name__}. {total:,} parameters in all.

## Tasks

{tasks or "None: pretrained only."}

## Use

```python
import medssml
model = medssml.load("FOLDER")   # this folder
```

For research. It is no medical device: its predictions are not validated for the care of any patient.
{further}"""
