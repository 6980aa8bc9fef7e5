"""Captioning: the report of a study, word after word, from its other modalities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from medssml.batch import Batch, Fused
from medssml.config import LeftOut
from medssml.decoders import ReportDecoder
from medssml.fusion import AdditiveFusion
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, refuse_single
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step
from medssml.objectives.words import no_words, terms_of, text_encoder

#: Training studies, the first ones, whose mean tokens are taken away in the next epoch.
OBSERVED = 512


class Asked(NamedTuple):
    """Studies whose report is written. rows: (k,) positions in the batch. ids: (k, L) int64 of their reports. counted: (k, L)
    bool, the words that are asked for; never the first, which begins every text."""

    rows: Tensor
    ids: Tensor
    counted: Tensor


class Captioning(Objective):
    """loss = mean over words of  -log p(word | words before it, fusion of all that the study has but the report)

    The decoder attends to the tokens of the fusion, which never sees the report; a study whose report is all that it has is
    left out. The captioning loss of CoCa [1] with any subset of modalities in the place of the image. The decoder is kept
    with the model and writes reports. Before each epoch it is told where the tokens of training studies lie by now.

    Of a share of the studies nothing is shown, so that the decoder also knows what reports say of no one in particular, which
    is what a sentence is held against that claims to be about a study (Ho and Salimans [2]).

    [1] Yu et al., CoCa: contrastive captioners are image-text foundation models, TMLR 2022. [2] Classifier-free diffusion
    guidance, 2022.

    Args:
        model: the model.
        report: whose words are written; its encoder is a `TextEncoder`.
        modalities: that are read; all but the report by default. Of a modality that no report speaks of, a decoder learns the
            training studies by heart, and makes up findings from it.
        dim, depth, heads, dropout: of the decoder.
        blind: share of the studies of which nothing is shown, drawn anew in each epoch; CoCa's is 0.
        weight: in the sum of objectives.

    Raises:
        ValueError: `blind` is no share below 1; `modalities` the model has not, or with another fusion than `AdditiveFusion`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        report: str = "report",
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        blind: float = 0.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.report, encoder = report, text_encoder(model, report, "Captioning: report")
        refuse_single(model, "Captioning")
        if not 0 <= blind < 1:
            raise ValueError(f"blind is {blind}; expected a share from 0 to below 1")
        self.blind = blind
        read = {report, *chosen(model, modalities, "Captioning")}
        additive = isinstance(model.fusion, AdditiveFusion)  # a token of each modality, in their order
        if modalities is not None and not additive:
            raise ValueError("Captioning: modalities are told apart behind an AdditiveFusion only; fix: leave them out")
        ids = encoder.special_ids
        self.decoder = ReportDecoder(
            encoder.vocab_size, model.dim, dim=dim, depth=depth, heads=heads, max_length=encoder.max_length,
            start=ids["cls"], end=ids["sep"], pad=ids["pad"], dropout=dropout,
            slots=len(model.modalities) if additive else 1,
            unread=[place for place, name in enumerate(model.modalities) if name not in read],
        )  # fmt: skip

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Tells the decoder where the tokens of `OBSERVED` studies lie; not before the model has taken a step."""
        if not model.begun:
            return
        shown, count = [], 0
        for batch in map(model.align, studies):
            within = self._within(model, batch.present)
            fused = model.fuse(model.encode(batch), batch.present, within)
            shown.append((fused.tokens, fused.mask))
            count += len(within)
            if count >= OBSERVED:
                break
        self.decoder.observe(shown)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of words that are the likeliest."""
        total, right, count = (global_sum(value) for value in self._write(step))
        if count == 0:
            return None
        return {"loss": total / count * step.share(self._count), "accuracy": right / count}

    def kept(self) -> dict[str, nn.Module]:
        """The decoder, which writes reports."""
        return {"decoder": self.decoder}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        report = arguments.get("report", "report")
        if report not in left or len(left) < 2:
            raise LeftOut(f"needs {report} and another modality")
        return super().restricted_to(arguments, left)

    def _write(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's sum of cross-entropies, number of right words, number of words."""
        rows, ids, counted = self._asked(step)
        if len(rows) == 0:
            return no_words(self.decoder.bias)
        shown = self._shown(step)
        mask = shown.mask[rows]
        if self.blind > 0 and self.training:
            seen = uniform(step.batch.key[rows], 1, "captioning.blind", seed=step.seed) >= self.blind
            mask = mask & seen
        logits = self.decoder(ids[:, :-1], shown.tokens[rows], mask)[counted[:, 1:]]
        return terms_of(logits, ids[:, 1:][counted[:, 1:]])

    def _shown(self, step: Step) -> Fused:
        """The fusion of all but the reports."""
        return step.fuse(step.encoded, self._within(step.model, step.present))

    def _within(self, model: MultimodalModel, present: Tensor) -> Tensor:
        """(B, M) bool, which modalities of each study are shown."""
        within = present.clone()
        within[:, model.modalities.index(self.report)] = False
        return within

    def _asked(self, step: Step) -> Asked:
        """The studies with a report and something else, and all words of their reports."""
        column = step.model.modalities.index(self.report)
        rows = step.batch.rows(self.report)
        several = step.present[rows].sum(1) > 1
        if not bool(several.any()):
            none = rows.new_zeros(0, 1)
            return Asked(rows[:0], none, none.bool())
        inputs = cast(dict[str, Tensor], step.batch.inputs[step.model.modalities[column]])
        return Asked(rows[several], inputs["input_ids"][several], inputs["attention_mask"][several].bool())

    def _count(self, step: Step) -> Tensor:
        return global_sum(self._asked(step).counted[:, 1:].sum())
