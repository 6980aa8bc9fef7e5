"""Noisy-correspondence rectification: which pairs of a cohort do not belong together is learned along, and they count less."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.bounds import bounded
from medssml.losses import all_gather_rows
from medssml.losses.info_nce import cosine_logits
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import features_of
from medssml.objectives.pairs import Sides, modalities_of, pairs_of, sides_of
from medssml.objectives.per_study import PerStudy
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace

#: Pairs below which no mixture is fitted, and rows that are compared with all others at a time.
FEWEST, ROWS = 20, 1024


class Directed(NamedTuple):
    """One direction of a pair of modalities: rows that look for their match.

    similarity: (n, N). match, negative: (n, N) bool. clean: (n,) how probable it is that each row's own pair belongs together.
    """

    similarity: Tensor
    match: Tensor
    negative: Tensor
    clean: Tensor

    @property
    def asked(self) -> Tensor:
        """(n,) bool: the rows with a match and a negative."""
        return self.match.any(1) & self.negative.any(1)


class RectifiedPairs(Objective):
    """loss = sum of y_i [a_i - s_ii + s_ij]_+  /  sum of y_i,   a_i = margin (base^y_i - 1) / (base - 1)

    s are cosines of two modalities of studies i and j, y_i in [0, 1] how probable it is that the two modalities of study i
    belong together, and j is the negative that is most alike; both directions count the same, and each direction's margin is
    that of the pair which looks. In the first part of a run all pairs are believed, y = 1, and the mean over all negatives
    takes the place of the worst, as nothing is known yet.

    From then on, before each epoch, the pairs of all training studies are compared with each other: the loss of a pair, the
    mean of [margin - s_ii + s_ij]_+ over all other subjects in both directions, does not depend on who is in a batch. Two normal
    distributions are fitted to these losses, scaled to 0 to 1; y is the posterior of the one of small losses, and 1 below
    its mean. Each pair of modalities has a mixture of its own.

    The paper trains two models, each on what the other believes, and replaces labels by predictions as well; here one model
    learns, and a pair counts as much as it is believed.

    [1] Huang et al., Learning with noisy correspondence for cross-modal matching, NeurIPS 2021 (NCR): warm-up, mixture,
        margin with base 10.

    Args:
        model: the model.
        dim: of the space in which modalities meet.
        margin: of a pair that is believed. base: m of the margin.
        warm_up: the share of the run in which all pairs are believed.
        pairs: such as ["ct+report", "xray+report"]; all pairs by default.
        batch_norm: of the vectors before they are projected; see `CrossModalContrast`.
        weight: in the sum of objectives.

    Raises:
        ValueError: a number out of its range.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        dim: int = 128,
        margin: float = 0.2,
        base: float = 10.0,
        warm_up: float = 0.2,
        pairs: Sequence[str] | None = None,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        bounded("margin of RectifiedPairs", margin, above=0, most=2)
        bounded("base of RectifiedPairs", base, above=1)
        bounded("warm_up of RectifiedPairs", warm_up, least=0, most=1)
        self.margin, self.base, self.warm_up = margin, base, warm_up
        self.pairs = pairs_of(model.modalities, pairs, "RectifiedPairs")
        self.space = SharedSpace(model.dim, dim, modalities_of(self.pairs, model.modalities), batch_norm)
        #: How probable it is that a pair does not belong together, by study and pair: 0 is what is not known.
        self.wrong = PerStudy()

    def kept(self) -> dict[str, nn.Module]:
        """The space in which a modality finds another."""
        return {"space": self.space}

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per pair of modalities how far its pairs are believed."""
        embeddings = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        sides = self._sides(step)
        totals, terms, logged = [], [], {}
        for (m, n), (side, clean) in zip(self.pairs, sides, strict=True):
            similarity = cosine_logits(embeddings[m], embeddings[n], 1.0)
            there = Directed(similarity, side.match, side.negative, clean[side.studies[0]])
            back = Directed(similarity.T, side.match.T, side.negative.T, clean[side.studies[1]])
            totals += [self._total(one, step.clock) for one in (there, back)]
            terms += [there.asked.sum() + back.asked.sum()]
            if there.asked.any():
                logged[f"believed_{m}+{n}"] = there.clean[there.asked].mean()
        if torch.stack(terms).sum() == 0:
            return None
        believed = self._believed(sides).clamp(min=1e-12)
        return {"loss": torch.stack(totals).sum() / believed * step.share(self._count), **logged}

    def _total(self, one: Directed, clock: Clock) -> Tensor:
        """() sum over the rows of how far each pair is from its margin, weighed by how far it is believed."""
        rows = one.asked.nonzero().squeeze(1)
        similarity, match, negative, clean = (part[rows] for part in one)
        margin = self.margin * (self.base**clean - 1) / (self.base - 1)
        own = similarity.masked_fill(~match, 0).sum(1)
        short = F.relu(margin[:, None] - own[:, None] + similarity).masked_fill(~negative, 0)
        if clock.done < self.warm_up:
            return (clean * short.sum(1) / negative.sum(1)).sum()
        return (clean * (short.amax(1) if len(rows) else own)).sum()

    def _sides(self, step: Step) -> list[tuple[Sides, Tensor]]:
        """Per pair of modalities who belongs to whom, and (B of all ranks,) how far the pair of each study is believed."""
        index = step.batch.index
        known = torch.full_like(step.batch.subject, -1) if index is None or not self.training else index
        wrong = all_gather_rows(self.wrong.of(known, len(self.pairs)).to(torch.float32))
        return [(sides_of(step, pair), 1 - wrong[:, place]) for place, pair in enumerate(self.pairs)]

    @staticmethod
    def _believed(sides: Iterable[tuple[Sides, Tensor]]) -> Tensor:
        """() how far all pairs of a step are believed, in both directions."""
        found = []
        for side, clean in sides:
            for match, negative, studies in (
                (side.match, side.negative, side.studies[0]),
                (side.match.T, side.negative.T, side.studies[1]),
            ):
                found.append((clean[studies] * (match.any(1) & negative.any(1))).sum())
        return torch.stack(found).sum()

    def _count(self, step: Step) -> Tensor:
        return self._believed(self._sides(step))

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Compares the pairs of all training studies, once the warm-up is over."""
        if clock.done < self.warm_up:
            return
        subjects: dict[int, int] = {}
        found = features_of(model, _noting(studies, subjects), self.space.modalities, "RectifiedPairs")
        embedded = {name: (index, self.space(name, pooled)) for name, (index, pooled) in found.items()}
        every = torch.cat([index for index, _ in embedded.values()]).unique() if embedded else torch.empty(0).long()
        wrong = self.wrong.rows.new_zeros(len(every), len(self.pairs))
        for place, (m, n) in enumerate(self.pairs):
            if m not in embedded or n not in embedded:
                continue
            index, losses = self._losses(embedded[m], embedded[n], subjects)
            clean = clean_posterior(losses.double().cpu().numpy())
            wrong[torch.searchsorted(every, index), place] = 1 - torch.from_numpy(clean).to(wrong)
        self.wrong.write(every, wrong)

    def _losses(
        self, a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], subjects: dict[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(n,) index of the studies with both modalities, and (n,) the loss of their pair among all others.

        Args:
            a, b: index and vectors of a modality, by index. subjects: index -> subject.
        """
        both = a[0][torch.isin(a[0], b[0])]
        x, y = (F.normalize(part[1][torch.isin(part[0], both)], dim=1) for part in (a, b))
        subject = torch.tensor([subjects[int(one)] for one in both], device=both.device)
        own = (x * y).sum(1)
        parts = []
        for rows in torch.arange(len(both), device=both.device).split(ROWS):
            other = subject[rows, None] != subject[None]
            short = F.relu(self.margin - own[rows, None] + x[rows] @ y.T) + F.relu(
                self.margin - own[rows, None] + y[rows] @ x.T
            )
            parts.append((short * other).sum(1) / (2 * other.sum(1).clamp(min=1)))
        return both, torch.cat(parts) if parts else own


def _noting(studies: Iterable[Batch], subjects: dict[int, int]) -> Iterator[Batch]:
    """The batches; who the subject of each study is, is noted on the way."""
    for batch in studies:
        if batch.index is not None:
            subjects.update(zip(batch.index.tolist(), batch.subject.tolist(), strict=True))
        yield batch


def clean_posterior(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) how probable it is that each of the losses (n,) is of the smaller kind: the posterior of a mixture of two normal
    distributions, fitted to losses scaled to 0 to 1 as in the authors' code (NCR); 1 below the mean of the smaller kind, which a
    wide distribution of the other kind would claim. All 1 where there are fewer than `FEWEST`, or all are alike.
    """
    from sklearn.mixture import GaussianMixture

    spread = float(np.ptp(losses)) if len(losses) else 0.0
    if len(losses) < FEWEST or spread < 1e-9:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / spread)[:, None]
    mixture = GaussianMixture(2, max_iter=100, tol=1e-3, reg_covar=5e-4, random_state=0).fit(scaled)
    smaller = int(mixture.means_[:, 0].argmin())
    posterior = mixture.predict_proba(scaled)[:, smaller]
    return np.asarray(np.where(scaled[:, 0] <= mixture.means_[smaller, 0], 1.0, posterior))
