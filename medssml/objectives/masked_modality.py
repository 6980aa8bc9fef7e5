"""Masked modalities: what a part of a study has, through the fusion, says what the hidden rest would have shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Fused
from medssml.layers import CrossBlock
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, refuse_single
from medssml.objectives.clock import Ramp
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide


class MaskedModality(Objective):
    """loss = mean over hidden modalities of all studies of  |D(t + e_m, fusion of the rest) - norm(x_m)|^2 / D

    Of each study with two modalities or more some are hidden, a draw of its own. The fusion joins the others; for each modality
    a mask token t with its embedding e_m attends to the fused tokens, D, and what comes out is compared with the vector that
    was hidden, normalised over its features and without gradient. A modality that the study never had is no target, and no
    study is without a term because another one has nothing to hide. ActionMAE [1] with any number of modalities; there
    the same ones are hidden for a whole batch, and where none is the loss is not a number.

    [1] Woo et al., Towards good practices for missing modality robust action recognition, AAAI 2023.

    Args:
        model: of two modalities or more.
        p: with which probability each present modality is hidden.
        depth: blocks of the decoder, thrown away afterwards; 2 as in the paper. heads: of their attention.
        weight: in the sum of objectives.

    Raises:
        ValueError: a number out of range.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        p: float = 0.5,
        depth: int = 2,
        heads: int = 4,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        refuse_single(model, "MaskedModality")
        if not 0 < p < 1 or depth < 1:
            raise ValueError(f"MaskedModality: p {p}, depth {depth}; fix: p between 0 and 1, a depth of 1 or more")
        self.p = p
        self.token = nn.Parameter(torch.randn(model.dim) * 0.02)
        self.modality = nn.Parameter(torch.randn(len(model.modalities), model.dim) * 0.02)
        self.blocks = nn.ModuleList([CrossBlock(model.dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(model.dim)
        self.out = nn.Linear(model.dim, model.dim)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, which is 1 for an answer that knows nothing, and the mean cosine of answer and target."""
        count = self._count(step)
        if count == 0:
            return None

        # What is left of each study says what was hidden.
        hidden = self._hidden(step)
        fused = step.fuse(step.encoded, step.present & ~hidden)
        guessed = wide(self._decode(fused))

        # Compared where something was truly there.
        targets = torch.zeros_like(guessed)
        for column, name in enumerate(step.model.modalities):
            if name in step.encoded:
                seen = wide(step.encoded[name].pooled).detach()
                targets[step.present[:, column], column] = F.layer_norm(seen, seen.shape[1:]).to(targets.dtype)
        error = (guessed[hidden] - targets[hidden]).square().mean(1)
        cosine = F.cosine_similarity(guessed[hidden].detach(), targets[hidden], dim=1)
        total, alike = global_sum(torch.stack([error.sum(), cosine.sum()])) / count
        return {"loss": total * step.share(self._count), "cosine": alike.detach()}

    def _decode(self, fused: Fused) -> Tensor:
        """(B, M, D) what each study would show in each modality."""
        context = torch.cat([fused.pooled.unsqueeze(1).to(fused.tokens.dtype), fused.tokens], dim=1)
        mask = F.pad(fused.mask, (1, 0), value=True)
        query = (self.token + self.modality).expand(len(context), -1, -1)
        for block in self.blocks:
            query = block(query, context, mask)
        return self.out(self.norm(query))

    def _hidden(self, step: Step) -> Tensor:
        """(B, M) bool, what each study has and is not shown."""
        return step.present & ~reduced_presence(step.present, step.batch.key, self.p, seed=step.seed)

    def _count(self, step: Step) -> Tensor:
        """() hidden modalities of all studies of all ranks."""
        return global_sum(self._hidden(step).sum())
