"""Token alignment: each word knows what it sees in the image of its own study from what the other words see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.layers import attendable
from medssml.losses import token_contrast
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, others_than
from medssml.objectives.clock import Ramp
from medssml.objectives.pairs import sides_of
from medssml.objectives.step import Step
from medssml.objectives.words import words_of_all


class TokenAlignment(Objective):
    """loss = mean over paired studies and both directions of the mean over tokens t of

        [-log softmax over t' of (w_t . o_t' / temperature) at t  +  -log softmax over t' of (o_t . w_t' / temperature) at t] / 2
        o_t = unit(sum over patches p of softmax over p of (w_t . p / temperature) p)

    The token-wise alignment of MGCA: contrast within one study, words to patches and patches to words. Neither [PAD] nor [CLS]
    nor [SEP] is a candidate. Every token of a study counts the same: the paper weighs them by attention to [CLS], which encoders
    here do not give. The other parts of MGCA, contrast and prototypes that modalities share, are `MGCA`.

    [1] Wang et al., Multi-granularity cross-modal alignment for generalized medical visual representation learning (MGCA),
    NeurIPS 2022.

    Args:
        model: the model.
        anchor: the modality with words.
        modalities: with patches; all others by default. One whose encoder gives a single token teaches nothing.
        dim: of the space, 128 as in the paper. temperature: 0.1 as in the paper.
        weight: in the sum of objectives.
    """

    anchored = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.1,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.anchor, self.modalities = others_than(model, anchor, modalities, "TokenAlignment")
        self.temperature = temperature
        self.heads = nn.ModuleDict({name: nn.Linear(model.dim, dim) for name in (self.anchor, *self.modalities)})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and that of each modality."""
        words = words_of_all(step, self.anchor)
        w, w_mask = self._unit(self.anchor, words.tokens), attendable(words.mask)
        means: dict[str, Tensor] = {}
        for name in self.modalities:
            patches = step.of_all(name)
            rows, own = self._paired(step, name)
            p, p_mask = self._unit(name, patches.tokens)[rows], attendable(patches.mask)[rows]
            both = [(w[own], p, w_mask[own], p_mask), (p, w[own], p_mask, w_mask[own])]
            terms = [token_contrast(*tokens, temperature=self.temperature) for tokens in both]
            if len(rows):
                # A side of one token has nothing to choose from: a term of 0.
                means[name] = sum(term.mean() for term, _ in terms) / 2  # type: ignore[assignment]
        if not means:
            return None
        counts = torch.stack([self._count_of(step, name) for name in means])
        loss = (torch.stack(list(means.values())) * counts).sum() / counts.sum() * step.share(self._count)
        return {"loss": loss} | {f"loss_{name}": mean.detach() for name, mean in means.items()}

    def _unit(self, name: str, tokens: Tensor) -> Tensor:
        projected = self.heads[name](tokens)
        return F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=-1)

    def _paired(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """Rows of `name` and of the anchor that are one study."""
        partner = sides_of(step, (name, self.anchor)).partner
        rows = (partner >= 0).nonzero().squeeze(1)
        return rows, partner[rows]

    def _count_of(self, step: Step, name: str) -> Tensor:
        return torch.tensor(len(self._paired(step, name)[0]), device=step.present.device)

    def _count(self, step: Step) -> Tensor:
        return torch.stack([self._count_of(step, name) for name in self.modalities]).sum()
