"""Prefix language model: the rest of a report, word after word, from its beginning and from the other modalities."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import Tensor

from medssml.batch import Fused, Inputs
from medssml.config import LeftOut
from medssml.model import MultimodalModel
from medssml.objectives.captioning import Asked, Captioning
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step


class PrefixLanguage(Captioning):
    """loss = mean over the words after the prefix of  -log p(word | words before it, fusion of the prefix and all modalities)

    The prefix of each report has a length drawn from the study's key, from none of its words to all but one. It is read in both
    directions by the report's encoder, as one modality among the others; what comes after it is written by the decoder, which
    sees it nowhere else before it is written. A report that is all a study has is learned from too, if it has a prefix. The
    decoder is kept with the model and writes reports.

    [1] Wang et al., SimVLM: simple visual language model pretraining with weak supervision, ICLR 2022.

    Args:
        model: the model.
        report: whose words are written; its encoder is a `TextEncoder`.
        dim, depth, heads, dropout: of the decoder.
        weight: in the sum of objectives.
    """

    def _shown(self, step: Step) -> Fused:
        """The fusion of everything, each report cut after its prefix and absent where that is empty."""
        if self.report not in step.batch.inputs:
            return step.fused
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.report])
        prefix = self._prefix(step)
        kept = torch.arange(inputs["input_ids"].shape[1], device=prefix.device) < prefix[:, None]
        cut: dict[str, Inputs] = {self.report: {**inputs, "attention_mask": kept.to(inputs["attention_mask"].dtype)}}
        within = step.present.clone()
        within[step.batch.rows(self.report), step.batch.column(self.report)] = prefix > 1
        return step.fuse({**step.encoded, **step.encode(inputs=cut)}, within)

    def _within(self, model: MultimodalModel, present: Tensor) -> Tensor:
        """(B, M) bool, all that there is."""
        return present

    def _asked(self, step: Step) -> Asked:
        """The studies whose report goes on after its prefix, and that show anything; the words after it."""
        rows = step.batch.rows(self.report)
        if len(rows) == 0:
            none = rows.new_zeros(0, 1)
            return Asked(rows, none, none.bool())
        inputs, prefix = cast(dict[str, Tensor], step.batch.inputs[self.report]), self._prefix(step)
        real, ids = inputs["attention_mask"].bool(), inputs["input_ids"]
        counted = real & (torch.arange(ids.shape[1], device=ids.device) >= prefix[:, None])
        some = counted.any(1) & ((step.present[rows].sum(1) > 1) | (prefix > 1))
        return Asked(rows[some], ids[some], counted[some])

    def _prefix(self, step: Step) -> Tensor:
        """(n,) tokens of each report's prefix, the one that begins every text included: from 1 to all but two."""
        inputs = cast(dict[str, Tensor], step.batch.inputs[self.report])
        words = (inputs["attention_mask"].sum(1) - 2).clamp(min=1)
        keys = step.batch.key[step.batch.rows(self.report)]
        return 1 + (uniform(keys, 1, "prefix_language", seed=step.seed).squeeze(1) * words).long()

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        report = arguments.get("report", "report")
        if report not in left or len(left) < 2:
            raise LeftOut(f"needs {report} and another modality")
        return arguments
