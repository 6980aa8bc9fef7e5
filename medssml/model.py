"""MultimodalModel: one encoder per modality, one fusion operator, one head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded, Fused, restrict
from medssml.config import Configured
from medssml.encoders.base import as_encoded
from medssml.encoders.heads import Head
from medssml.fusion.base import Fusion

__all__ = ["MultimodalModel", "Task"]


@dataclass(frozen=True)
class Task:
    """What a head predicts: kind "binary", "multiclass" with n_classes, or "regression"."""

    kind: str = "binary"
    n_classes: int = 2


class MultimodalModel(Configured, nn.Module):
    """encode each modality -> project to the width of the fusion -> fuse what is present -> one head per task.

    Args:
        encoders: modality -> `Encoder`, or any module with an attribute `dim` that returns (n, D), (n, N, D) or `Encoded`.
        fusion: operator over exactly these modalities; its order of the names is the order of the columns.
        tasks: name -> Task, or its arguments as a dict.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        fusion: Fusion,
        tasks: Mapping[str, Task | Mapping[str, object]] | None = None,
    ) -> None:
        super().__init__()
        if set(encoders) != set(fusion.modalities):
            raise ValueError(f"encoders for {sorted(encoders)}, but fusion of {sorted(fusion.modalities)}; they must be the same")
        for name, encoder in encoders.items():
            if not isinstance(getattr(encoder, "dim", None), int):
                raise ValueError(f"encoder of {name}: {type(encoder).__name__} has no integer attribute `dim`, its output width")
        self.modalities = tuple(fusion.modalities)
        self.encoders = nn.ModuleDict({name: encoders[name] for name in self.modalities})
        self.project = nn.ModuleDict({name: nn.Linear(int(encoders[name].dim), fusion.dim) for name in self.modalities})
        self.fusion = fusion
        self.heads = nn.ModuleDict()
        self.tasks: dict[str, Task] = {}
        for name, task in (tasks or {}).items():
            self.add_task(name, task)

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
            raise ValueError(f"task {name!r} is {self.tasks[name]} already, not {wanted}; give it another name")
        if name in self.tasks:
            return
        self.tasks[name] = wanted
        self.heads[name] = Head(self.dim, wanted.kind, wanted.n_classes).to(next(self.fusion.parameters()).device)
        self._arguments["tasks"] = {key: asdict(value) for key, value in self.tasks.items()}

    def align(self, batch: Batch) -> Batch:
        """The batch with the model's modalities as columns: one that it lacks is absent, one more is left out."""
        if batch.modalities == self.modalities:
            return batch
        absent = torch.zeros_like(batch.present[:, 0]) if batch.present.shape[1] else batch.present.new_zeros(len(batch))
        columns = [batch.present[:, batch.column(m)] if m in batch.modalities else absent for m in self.modalities]
        return replace(
            batch,
            inputs={m: value for m, value in batch.inputs.items() if m in self.modalities},
            content={m: value for m, value in batch.content.items() if m in self.modalities},
            present=torch.stack(columns, dim=1),
            modalities=self.modalities,
        )

    def encode_raw(self, batch: Batch) -> dict[str, Encoded]:
        """Modality -> what its encoder gives for the studies that have it; a modality without rows is left out."""
        return {
            modality: as_encoded(self.encoders[modality](batch.inputs[modality]))
            for modality in self.modalities
            if modality in batch.inputs and bool(batch.present[:, batch.column(modality)].any())
        }

    def projected(self, raw: Mapping[str, Encoded]) -> dict[str, Encoded]:
        """The same with tokens and pooled in the width of the fusion."""
        return {
            name: Encoded(self.project[name](part.tokens), part.mask, self.project[name](part.pooled))
            for name, part in raw.items()
        }

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Modality -> projected tokens (n_m, N, D) and pooled (n_m, D) of the studies that have it."""
        return self.projected(self.encode_raw(batch))

    def fuse(self, encoded: Mapping[str, Encoded], present: Tensor, within: Tensor | None = None) -> Fused:
        """Fuses; no encoder runs.

        Args:
            encoded: from `encode`.
            present: (B, M) bool, columns in the order of `modalities`: what `encoded` holds. See `align`.
            within: (B, M) bool, the part of it that may be seen; None for all.
        """
        parts = dict(encoded)
        if within is None:
            return self.fusion(parts, present)
        return self.fusion(restrict(parts, present, within, self.modalities), within)

    def predict_from(self, fused: Fused) -> dict[str, Tensor]:
        """Task -> (B,) or (B, K) logits."""
        return {name: head(fused.pooled) for name, head in self.heads.items()}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> (B,) or (B, K) logits of the studies of `batch`."""
        batch = self.align(batch)
        return self.predict_from(self.fuse(self.encode(batch), batch.present))
