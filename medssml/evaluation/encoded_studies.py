"""Studies after their encoders have run: what every evaluation and counterfactual starts from, so that it runs once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from medssml.batch import Batch, Encoded, Fused, made_up
from medssml.evaluation.feature_scale import feature_scale
from medssml.model import MultimodalModel
from medssml.statistics.bootstrap import Array

#: Studies fused in one pass.
PASS = 256
#: More modalities than this make 2^M coalitions too many to enumerate.
MOST_MODALITIES = 10


def subset_name(mask: int, modalities: tuple[str, ...]) -> str:
    """The contract's name of a subset, "ct+xray", from its bits: bit j is `modalities[j]`."""
    return "+".join(name for j, name in enumerate(modalities) if mask >> j & 1)


def subset_mask(name: str, modalities: tuple[str, ...]) -> int:
    """The bits of a subset from its name, in any order of the modalities.

    Raises:
        KeyError: a modality that is not known.
    """
    mask = 0
    for modality in filter(None, name.split("+")):
        if modality not in modalities:
            raise KeyError(f"subset {name!r} names {modality!r}; known modalities: {list(modalities)}")
        mask |= 1 << modalities.index(modality)
    return mask


def subsets(modalities: tuple[str, ...]) -> list[int]:
    """Bits of all 2^M subsets, the empty one first, then by size.

    Raises:
        ValueError: too many modalities to enumerate.
    """
    if len(modalities) > MOST_MODALITIES:
        raise ValueError(f"{len(modalities)} modalities have {2 ** len(modalities)} subsets; at most {MOST_MODALITIES}")
    columns = range(len(modalities))
    return [sum(1 << j for j in part) for size in range(len(modalities) + 1) for part in combinations(columns, size)]


def bits(present: Array) -> Array:
    """(N,) int bits of each study's modalities, from present (N, M)."""
    return np.asarray(present, dtype=np.int64) @ (1 << np.arange(np.asarray(present).shape[1]))


@dataclass(frozen=True)
class EncodedStudies:
    """N studies behind their encoders, on the CPU.

    Args:
        encoded: modality -> the rows of the studies that have it, in the order of the studies.
        present: (N, M) bool.
        modalities: names of the columns.
        study_id: (N) names.
        subject: (N,) int64; equal numbers are one person.
        targets: task -> (N,) float, NaN where unlabelled.
        content: modality -> (n_m,) int64; equal numbers are duplicates.
        raw: modality -> (n_m, D_m) pooled, before the projection to the fusion's width.
        measured: modality -> how many features of `raw`, the first ones, are measured by hand (`Descriptor`): these share one
            scale. A modality that has none need not be named.
    """

    encoded: dict[str, Encoded]
    present: Tensor
    modalities: tuple[str, ...]
    study_id: tuple[str, ...]
    subject: Array
    targets: dict[str, Array]
    content: dict[str, Array]
    raw: dict[str, Tensor]
    measured: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.study_id)

    @property
    def has(self) -> Array:
        """(N, M) bool, as numpy."""
        return self.present.numpy()

    def column(self, modality: str) -> int:
        """The column of a modality.

        Raises:
            KeyError: not known.
        """
        if modality not in self.modalities:
            raise KeyError(f"no modality {modality!r}; these studies know {list(self.modalities)}")
        return self.modalities.index(modality)

    def position(self, modality: str) -> Tensor:
        """(N,) row in `encoded[modality]` of every study; -1 where it has none."""
        has = self.present[:, self.column(modality)]
        return torch.where(has, has.cumsum(0) - 1, -1)

    def take(self, studies: Array) -> EncodedStudies:
        """Some of the studies.

        Args:
            studies: (n,) int, their places.
        """
        rows = torch.as_tensor(np.asarray(studies, dtype=np.int64))
        of = {name: self.position(name)[rows] for name in self.modalities}
        of = {name: place[place >= 0] for name, place in of.items()}
        some = {name for name, place in of.items() if len(place)}
        return EncodedStudies(
            {m: part.select(of[m]) for m, part in self.encoded.items() if m in some},
            self.present[rows],
            self.modalities,
            tuple(self.study_id[int(row)] for row in rows),
            self.subject[rows.numpy()],
            {task: values[rows.numpy()] for task, values in self.targets.items()},
            {m: values[of[m].numpy()] for m, values in self.content.items() if m in some},
            {m: values[of[m]] for m, values in self.raw.items() if m in some},
            self.measured,
        )

    def standardised(self, modality: str) -> Array:
        """(n_m, D_m) `raw` with mean 0 and variance 1; what is measured by hand keeps its proportions."""
        given = self.raw[modality].double().numpy()
        return (given - given.mean(axis=0)) / feature_scale(given, self.measured.get(modality, 0))

    def gather(self, studies: Tensor, within: Tensor, source: Tensor | None = None) -> dict[str, Encoded]:
        """What fusion is given for B made-up studies, the rows of which come from any study.

        Args:
            studies: (B,) study that each row is about.
            within: (B, M) bool, what is seen of it.
            source: (B, M) study that each modality is taken from; None for the study itself.

        Returns:
            modality -> rows where `within`; a modality without rows is left out.

        Raises:
            ValueError: a source does not have the modality.
        """
        origin = studies[:, None] if source is None else source
        return made_up(self.encoded, self.present, torch.where(within, origin, -1), self.modalities)[0]


def encode_studies(
    model: MultimodalModel, batches: Iterable[Batch], device: str | torch.device = "cpu"
) -> EncodedStudies:
    """Runs every encoder once over `batches`.

    Args:
        model: left in evaluation mode.
        batches: in any order; a study belongs to one batch.
        device: where the encoders run.

    Raises:
        ValueError: no study at all.
    """
    model.eval().to(device)
    parts: list[tuple[Batch, dict[str, Encoded], dict[str, Tensor]]] = []
    with torch.inference_mode():
        for batch in batches:
            batch = model.align(batch.to(device))
            raw = model.encode_raw(batch)
            encoded = {m: _leaner(model, _to_cpu(part)) for m, part in model.projected(raw).items()}
            parts.append((batch.to("cpu"), encoded, {m: part.pooled.float().cpu() for m, part in raw.items()}))
    if not parts:
        raise ValueError("no study to evaluate; fix: choose a split that has studies, or another manifest")
    measured = {m: model.descriptors.width(m) for m in model.modalities}
    return _joined(model.modalities, parts, measured)


def _joined(
    modalities: tuple[str, ...],
    parts: list[tuple[Batch, dict[str, Encoded], dict[str, Tensor]]],
    measured: Mapping[str, int],
) -> EncodedStudies:
    batches = [batch for batch, _, _ in parts]
    tasks = sorted({task for batch in batches for task in batch.targets})
    nan = float("nan")
    return EncodedStudies(
        encoded={
            m: _stacked([e[m] for _, e, _ in parts if m in e]) for m in modalities if any(m in e for _, e, _ in parts)
        },
        present=torch.cat([batch.present for batch in batches]),
        modalities=modalities,
        study_id=tuple(study for batch in batches for study in batch.study_id),
        subject=torch.cat([batch.subject for batch in batches]).numpy(),
        targets={
            t: torch.cat([b.targets.get(t, torch.full((len(b),), nan)).double() for b in batches]).numpy()
            for t in tasks
        },
        content={
            m: torch.cat([b.content[m] for b in batches if m in b.content]).numpy()
            for m in modalities
            if any(m in b.content for b in batches)
        },
        raw={
            m: torch.cat([r[m] for _, _, r in parts if m in r]) for m in modalities if any(m in r for _, _, r in parts)
        },
        measured=measured,
    )


def _to_cpu(part: Encoded) -> Encoded:
    return part.each(lambda value: (value.float() if value.is_floating_point() else value).cpu())


def _leaner(model: MultimodalModel, part: Encoded) -> Encoded:
    """Without the tokens where the fusion does not read them: a cohort's worth of tokens is most of the memory."""
    if model.fusion.reads == "tokens":
        return part
    return Encoded(part.tokens[:, :0].clone(), part.mask[:, :0].clone(), part.pooled)


def _stacked(parts: list[Encoded]) -> Encoded:
    """Rows of several batches; shorter ones are filled with masked tokens."""
    longest = max(part.tokens.shape[1] for part in parts)

    def filled(value: Tensor) -> Tensor:
        out = value.new_zeros(len(value), longest, *value.shape[2:])
        out[:, : value.shape[1]] = value
        return out

    return Encoded(
        torch.cat([filled(part.tokens) for part in parts]),
        torch.cat([filled(part.mask) for part in parts]),
        torch.cat([part.pooled for part in parts]),
    )


def fuse_studies(
    model: MultimodalModel,
    studies: EncodedStudies,
    within: Tensor,
    source: Tensor | None = None,
    rows: Tensor | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[Fused]:
    """Fuses B made-up studies, some at a time; no encoder runs. The arguments are those of `EncodedStudies.gather`.

    Args:
        model: in evaluation mode, on `device`.
        studies: where the rows come from.
        within: (B, M) bool.
        source: (B, M), or None.
        rows: (B,) study that each row is about; None for all studies in their order.
        device: where fusion runs.
    """
    rows = torch.arange(len(studies)) if rows is None else rows
    with torch.inference_mode():
        for start in range(0, len(rows), PASS):
            part = slice(start, start + PASS)
            origin = None if source is None else source[part]
            encoded = studies.gather(rows[part], within[part], origin)
            moved = {m: e.each(lambda value: value.to(device)) for m, e in encoded.items()}
            yield model.fuse(moved, within[part].to(device))
