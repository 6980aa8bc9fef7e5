"""Label bridge: modalities meet where studies have like labels, be they one study or of different hospitals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from medssml.losses import all_gather_rows
from medssml.losses.info_nce import cosine_logits
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.contrast import LogitScale
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class LabelBridge(Objective):
    """loss = mean over terms of  -sum over j of softmax_j(y_i . y_j) log softmax_j(cos(z_i, z_j) / t)

    Both ways, over all pairs (m, n) of modalities. i are the studies with modality m, j those with n, of all ranks; y is 1, -1
    or, where a label is not known, 0 for each task. A CT and a report with the same findings attract each other, from whichever
    patients they are: no pair is needed, and no negative is false. Studies without any of the labels take no part.

    [1] Wang, Wu, Agarwal, Sun, MedCLIP: contrastive learning from unpaired medical images and text, EMNLP 2022.

    Args:
        model: the model.
        tasks: names of labels of two classes, such as findings; of the table's columns label_NAME.
        modalities: of which; all by default.
        dim: of the space. temperature: t at the start; it is trained, within [0.01, 1].
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives.

    Raises:
        ValueError: no task, or fewer than two modalities.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        tasks: Sequence[str],
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.07,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        names = chosen(model, modalities, "LabelBridge")
        if len(names) < 2:
            raise ValueError(f"LabelBridge needs two modalities; it has {list(names)}")
        if not tasks:
            raise ValueError("LabelBridge: tasks is empty; fix: name labels of two classes")
        self.tasks = tuple(tasks)
        self.pairs = tuple(combinations(names, 2))
        self.space = SharedSpace(model.dim, dim, names, batch_norm)
        self.scale = LogitScale(temperature)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss and temperature.

        Raises:
            KeyError: the studies have no such label. ValueError: a label that is neither 0 nor 1.
        """
        vectors = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        labels, scale = self._labels(step), self.scale()
        rows = {name: self._rows(step, labels, name) for name in vectors}
        total, count = [], 0
        for m, n in self.pairs:
            (a, i), (b, j) = rows[m], rows[n]
            if min(len(a), len(b)) < 2:
                continue
            logits, like = cosine_logits(vectors[m][a], vectors[n][b], scale), labels[i] @ labels[j].T
            for score, wanted in ((logits, like), (logits.T, like.T)):
                total.append(-(wanted.softmax(1) * score.log_softmax(1)).sum())
            count += len(a) + len(b)
        if not total:
            return None
        return {
            "loss": torch.stack(total).sum() / count * step.share(self._count),
            "temperature": 1 / scale.detach(),
        }

    def kept(self) -> dict[str, nn.Module]:
        """The space, in which a modality finds another."""
        return {"space": self.space}

    def _labels(self, step: Step) -> Tensor:
        """(B, T) of all ranks: 1, -1, or 0 where a label is not known."""
        columns = []
        for task in self.tasks:
            if task not in step.batch.targets:
                known = ", ".join(step.batch.targets) or "none"
                raise KeyError(f"LabelBridge: no label {task!r} in these studies; they have {known}")
            value = step.batch.targets[task]
            if bool((value.isfinite() & (value != 0) & (value != 1)).any()):
                raise ValueError(f"LabelBridge: {task} has other values than 0 and 1; fix: name labels of two classes")
            columns.append(torch.where(value.isfinite(), 2 * value - 1, 0.0))
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        return all_gather_rows(torch.stack(columns, dim=1).to(dtype))

    def _rows(self, step: Step, labels: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Where the labelled studies with a modality stand among all that have it, and among all studies."""
        studies = step.everyone.rows(step.model.modalities.index(name))
        rows = labels[studies].any(1).nonzero().squeeze(1)
        return rows, studies[rows]

    def _count(self, step: Step) -> Tensor:
        labels = self._labels(step)
        sizes = {name: len(self._rows(step, labels, name)[0]) for name in self.space.modalities}
        found = [sizes[m] + sizes[n] for m, n in self.pairs if min(sizes[m], sizes[n]) > 1]
        return torch.tensor(sum(found), device=step.present.device)
