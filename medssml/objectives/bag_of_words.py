"""Words from other modalities: what a report says, in any order, from each modality of the same study alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.config import LeftOut
from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.objectives.words import text_encoder
from medssml.spaces import gathered_norms

#: Multiplier of the hash of a pair of words; any odd number far from a power of two will do.
PAIR = 1_000_003
#: Share of a new batch in the running frequency of words, and the least frequency of one.
MOMENTUM, RARE = 0.02, 1e-6


class BagOfWords(Objective):
    """Each named modality alone predicts which words, and which pairs of neighbouring words, the report of its study has.

        loss = mean over studies and modalities of  -sum_w t_w log softmax(W n(x_m) + b + log f)_w,   t = 1 / |bag| on the bag

    Joulin et al. 2016 (visual features from weakly supervised data), with hashed pairs as in fastText (Joulin et al.
    2017): "marked spiculation" is more than its words. A report is a set of weak labels, and all of them are asked for in
    every step, without a pass through the text encoder; one W for all modalities puts what says the same at the same
    place, so that a modality that knows little learns its directions from one that knows more.
    f is the running frequency of the words: what all reports say is known from the first step, and no feature has to
    serve as a constant until b, which moves by a learning rate a step, has come that far. n normalises over the studies of
    all ranks.

    Args:
        model: the model.
        modalities: which predict.
        report: whose words are predicted; its encoder is a `TextEncoder`.
        pairs: hash buckets for pairs of words; 0 for single words only.
        batch_norm: n is a batch normalisation over all ranks (`GatheredNorm`), of all modalities or of those named; else
            the identity.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str],
        report: str = "report",
        pairs: int = 2048,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.modalities = chosen(model, list(modalities), "BagOfWords")
        self.report, encoder = report, text_encoder(model, report, "BagOfWords: report")
        if report in self.modalities:
            raise ValueError(f"BagOfWords: {report} cannot predict its own words; name other modalities")
        if pairs < 0:
            raise ValueError(f"pairs is {pairs}; expected 0 or a number of buckets")
        self.words, self.pairs = encoder.vocab_size, pairs
        self.register_buffer("special", torch.tensor(sorted(set(encoder.special_ids.values()))), persistent=False)
        self.special: Tensor
        self.norms = gathered_norms(model.dim, self.modalities, batch_norm)
        self.predict = nn.Linear(model.dim, self.words + pairs)
        size = self.words + pairs
        self.register_buffer("frequency", torch.full((size,), 1.0 / size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.frequency: Tensor
        self.batches: Tensor

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, the mean over all predictions of all ranks, and "loss/MODALITY"."""
        bags = self._bags_of_all(step)
        self._follow(bags)
        found = {name: self._ask(step, name, bags) for name in self.modalities}
        count = sum(len(losses) for losses in found.values())
        if count == 0:
            return None
        logged = {f"loss/{name}": losses.detach().mean() for name, losses in found.items() if len(losses)}
        return {"loss": torch.cat(list(found.values())).sum() / count * step.share(self._count), **logged}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        report = arguments.get("report", "report")
        if report not in left:
            raise LeftOut(f"needs {report}")
        return super().restricted_to(arguments, left)

    def _bags_of_all(self, step: Step) -> Tensor:
        """(n_report of all ranks, words + pairs)."""
        inputs = cast(dict[str, Tensor], step.batch.inputs.get(self.report, {}))
        none = step.batch.subject.new_zeros(0, 1)
        return all_gather_rows(self.bags(inputs.get("input_ids", none), inputs.get("attention_mask", none)))

    def bags(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, words + pairs) share of each word and pair; zero for a report without a word.

        Args:
            input_ids: (n, L) int64. attention_mask: (n, L).
        """
        word = attention_mask.bool() & ~torch.isin(input_ids, self.special)
        bag = torch.zeros(len(input_ids), self.words + self.pairs, device=input_ids.device)
        bag.scatter_reduce_(1, input_ids, word.float(), "amax")
        if self.pairs:
            bucket = (input_ids[:, :-1] * PAIR + input_ids[:, 1:]) % self.pairs + self.words
            bag.scatter_reduce_(1, bucket, (word[:, :-1] & word[:, 1:]).float(), "amax")
        return bag / bag.sum(1, keepdim=True).clamp(min=1)

    @torch.no_grad()
    def _follow(self, bags: Tensor) -> None:
        """Takes the bags of all ranks into the running frequency; nothing in evaluation mode."""
        if not self.training:
            return
        said = bags[bags.sum(1) > 0]
        if len(said) == 0:
            return
        self.batches += 1
        self.frequency.lerp_(said.mean(0).to(self.frequency.dtype), max(MOMENTUM, 1.0 / (1 + int(self.batches))))

    def _who(self, step: Step, name: str, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B of all ranks,) bool each: who has the modality, who a report, who a report with a word."""
        present, columns = step.everyone.present, step.model.modalities
        has, reported = present[:, columns.index(name)], present[:, columns.index(self.report)]
        worded = reported.clone()
        worded[reported] = bags.sum(1) > 0
        return has, reported, worded

    def _count(self, step: Step) -> Tensor:
        bags = self._bags_of_all(step)
        who = (self._who(step, name, bags) for name in self.modalities)
        return torch.stack([(has & worded).sum() for has, _, worded in who]).sum()

    def _ask(self, step: Step, name: str, bags: Tensor) -> Tensor:
        """(n,) losses of the studies of all ranks that have the modality and a report with a word."""
        has, reported, worded = self._who(step, name, bags)
        # All rows of the modality count in its normalisation, also those of studies without a report.
        x = self.norms[name](step.pooled_of_all(name))
        logits = self.predict(x[(has & worded)[has]])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) + (self.frequency + RARE).log()
        return F.cross_entropy(logits, bags[(has & worded)[reported]].to(logits.dtype), reduction="none")
