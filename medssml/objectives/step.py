"""A step of learning: one batch, one model, and what several objectives ask of them, computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded, Fused, Inputs, made_up
from medssml.losses import Alike, all_gather_rows, global_max
from medssml.model import MultimodalModel
from medssml.objectives.clock import Clock


class Studies(NamedTuple):
    """What is known of the studies of all ranks, beside their tensors.

    subject: (B,) int64. present: (B, M) bool. content: (B, M) int64 hash of each input. hashed: (B, M) bool, where
    `content` says anything.
    """

    subject: Tensor
    present: Tensor
    content: Tensor
    hashed: Tensor

    def rows(self, column: int) -> Tensor:
        """(n_m,) positions of the studies that have the modality in `column`."""
        return self.present[:, column].nonzero().squeeze(1)

    def groups(self, columns: Sequence[int]) -> Tensor:
        """(B, 1 + C) int64: studies that share a number in a column are of one subject, or duplicates in one of `columns`."""
        out = [self.subject]
        # What has no hash has a number of its own, which no rank of a hash is.
        alone = -1 - torch.arange(len(self.subject), device=self.subject.device)
        for column in columns:
            ranks = self.content[:, column].unique(return_inverse=True)[1]
            out.append(torch.where(self.hashed[:, column], ranks, alone))
        return torch.stack(out, dim=1)

    def alike(self, a: Tensor, b: Tensor, columns: Sequence[int]) -> Tensor:
        """Which studies cannot be each other's negatives: of one subject, or with a duplicate in one of `columns`.

        Args:
            a: (Na,) positions. b: (Nb,) positions.

        Returns:
            (Na, Nb) bool.
        """
        groups = self.groups(columns)
        return Alike(groups[a], groups[b]).rows(slice(None))


class Teacher(NamedTuple):
    """A model that is followed or copied, not trained. twins: objective -> the copy of it that goes with the model."""

    model: MultimodalModel
    twins: Mapping[nn.Module, nn.Module] = {}


class Step:
    """One batch seen by one model.

    Args:
        model: whose modalities are the columns from here on; what the batch has beyond them is left out.
        batch: of this rank.
        seed: draws other masks for the same studies.
        clock: where the run stands.
        teacher: the model behind `teacher`.
        group: all batches of this step of the optimiser, this one among them; none where it is the only one.
        frozen: compute without gradients.
        chunk: studies that pass an encoder at a time, for batches whose activations do not fit; see `in_chunks`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        batch: Batch,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        teacher: Teacher | None = None,
        group: Sequence[Batch] = (),
        frozen: bool = False,
        chunk: int | None = None,
    ) -> None:
        self.model = model
        self.batch = model.align(batch)
        self.seed = seed
        self.clock = Clock() if clock is None else clock
        self.frozen = frozen
        self.chunk = chunk
        self._teacher = teacher
        self._group = group or (batch,)
        self._given = batch
        self._gathered: dict[str, Tensor] = {}
        self._passes: dict[tuple, tuple[object, dict[str, Encoded]]] = {}

    @property
    def present(self) -> Tensor:
        """(B, M) bool."""
        return self.batch.present

    def having(self, modalities: Iterable[str]) -> Tensor:
        """(B,) bool: the studies that have one of `modalities`, those included that this model does not read."""
        columns = [self._given.column(name) for name in modalities if name in self._given.modalities]
        return self._given.present[:, columns].any(1)

    @cached_property
    def encoded(self) -> dict[str, Encoded]:
        """Modality -> tokens and pooled of the studies that have it, in the width of the fusion."""
        with self._gradients():
            return self.model.encode(self.batch, self.chunk)

    @cached_property
    def fused(self) -> Fused:
        """All that is present of each study."""
        return self.fuse(self.encoded)

    def encode(
        self,
        *,
        keep: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Inputs] | None = None,
        layers: int = 0,
    ) -> dict[str, Encoded]:
        """A pass of the encoders over chosen tokens or changed inputs, in the width of the fusion: see `raw`."""
        return self.model.projected(self.raw(keep=keep, inputs=inputs, layers=layers))

    def raw(
        self,
        *,
        keep: Mapping[str, Tensor] | None = None,
        inputs: Mapping[str, Inputs] | None = None,
        layers: int = 0,
    ) -> dict[str, Encoded]:
        """The same in the encoders' own widths; objectives that ask for the same share the pass.

        Args:
            keep: modality -> (n_m, K) int64 tokens to compute.
            inputs: modality -> inputs in the place of the batch's, of the same studies.
            layers: how many of the last blocks' outputs to give along, in `Encoded.layers`.

        Returns:
            the modalities that `keep` or `inputs` name, or all of them where neither is given.
        """
        key = (*((name, id(value)) for part in (keep, inputs) for name, value in (part or {}).items()), layers)
        if key not in self._passes:
            named = {**(keep or {}), **(inputs or {})}
            asked = {m: v for m, v in {**self.batch.inputs, **(inputs or {})}.items() if m in named or not named}
            with self._gradients():
                # What was asked for is held, so that its `id` stays its own.
                self._passes[key] = (
                    (keep, inputs),
                    self.model.encode_raw(replace(self.batch, inputs=asked), keep, layers, self.chunk),
                )
        return self._passes[key][1]

    def fuse(self, encoded: dict[str, Encoded], within: Tensor | None = None) -> Fused:
        """The fusion of any encodings of the batch's studies, from what is `within` (B, M) bool; None for all present."""
        with self._gradients():
            return self.model.fuse(encoded, self.present, within)

    def fuse_made_up(self, encoded: dict[str, Encoded], source: Tensor) -> Fused:
        """The fusion of K studies made of parts of the batch's: see `medssml.batch.made_up` for `source` (K, M)."""
        parts, within = made_up(encoded, self.present, source, self.model.modalities)
        with self._gradients():
            return self.model.fuse(parts, within)

    @cached_property
    def views(self) -> tuple[Step, ...]:
        """A step for each look at the same studies, each augmented by itself; this one is the first."""
        others = (
            Step(
                self.model,
                view,
                seed=self.seed,
                clock=self.clock,
                teacher=self._teacher,
                frozen=self.frozen,
                chunk=self.chunk,
            )  # fmt: skip
            for view in self.batch.views
        )
        return (self, *others)

    def seen_by(self, model: MultimodalModel, *, seed: int) -> Step:
        """The same batch seen by another model that learns, with draws of its own."""
        return Step(model, self._given, seed=seed, clock=self.clock, group=self._group, chunk=self.chunk)

    @cached_property
    def teacher(self) -> Step:
        """The same batch seen by the teacher, in evaluation mode and without gradients.

        Raises:
            ValueError: this run has no teacher.
        """
        if self._teacher is None:
            raise ValueError(
                "this run has no teacher; fix: the attribute `teacher` of the objective, or a key `teacher`"
            )
        return Step(self._teacher.model, self._given, seed=self.seed, clock=self.clock, frozen=True, chunk=self.chunk)

    def twin(self, objective: nn.Module) -> nn.Module:
        """The teacher's copy of an objective's own parts: a momentum head."""
        if self._teacher is None or objective not in self._teacher.twins:
            raise ValueError(f"{type(objective).__name__} has no twin; fix: its attribute `teacher`")
        return self._teacher.twins[objective]

    def alike(self, modality: str) -> Tensor:
        """(n, n) bool: which studies of all ranks that have a modality cannot be each other's negatives in it."""
        column = self.model.modalities.index(modality)
        rows = self.everyone.rows(column)
        return self.everyone.alike(rows, rows, [column])

    def share(self, count: Callable[[Step], Tensor]) -> Tensor | float:
        """What a mean over the terms of this batch is multiplied with, so that the step has the mean over all of its terms.

        With n batches in a step of the optimiser, and c_i terms in batch i, it is n c_i / sum c: the learner averages the
        n losses. 1 where the batch is alone.

        Args:
            count: how many terms a batch has over all ranks, from presence, labels and lengths; no encoder need run.
        """
        if len(self._group) == 1:
            return 1.0
        return self._shares(lambda step: count(step)[None])[0][0]

    def mean_of_means(self, means: Tensor, counts: Callable[[Step], Tensor]) -> Tensor:
        """The mean over G groups of the mean over the terms of each, a group without a term left out; see `share`.

        Args:
            means: (G,) of this batch, anything where a group has no term.
            counts: (G,) how many terms of each group a batch has over all ranks.
        """
        shares, groups = self._shares(counts)
        return torch.where(shares > 0, shares * means, 0.0).sum() / groups.clamp(min=1)

    def _shares(self, counts: Callable[[Step], Tensor]) -> tuple[Tensor, Tensor]:
        """(G,) n c_i / sum c, 0 for a group without a term; and how many groups the step has."""
        table = torch.stack([counts(step).double() for step in self.siblings])
        total = table.sum(0)
        # Weights, not only counts: a total may be below 1.
        shares = len(table) * table[self._place] / torch.where(total > 0, total, 1.0)
        return shares.to(torch.float32), (total > 0).sum()

    @cached_property
    def siblings(self) -> tuple[Step, ...]:
        """A step for each batch of this step of the optimiser, this one in its place."""
        return tuple(
            self if batch is self._given else Step(self.model, batch, seed=self.seed, clock=self.clock)
            for batch in self._group
        )

    @property
    def _place(self) -> int:
        return next(place for place, batch in enumerate(self._group) if batch is self._given)

    def of_all(self, modality: str) -> Encoded:
        """Tokens, mask and pooled of a modality, of the studies of all ranks; every rank asks for it.

        Shorter token sequences of a rank are filled up with masked ones. What is computed from it is computed by every
        rank in full: see `losses.gather`.
        """
        mine = self.encoded.get(modality)
        longest = global_max(0 if mine is None else mine.tokens.shape[1], self.present.device)
        like = next(self.model.project[modality].parameters())
        tokens = like.new_zeros(0, longest, self.model.dim) if mine is None else mine.tokens
        mask = self.present.new_zeros(0, longest) if mine is None else mine.mask
        missing = longest - tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, 0, 0, missing))
        mask = nn.functional.pad(mask, (0, missing))
        wide = torch.promote_types(tokens.dtype, torch.float32)
        return Encoded(
            all_gather_rows(tokens.to(wide)), all_gather_rows(mask.long()).bool(), self.pooled_of_all(modality)
        )

    def pooled_of_all(self, modality: str) -> Tensor:
        """(n_m of all ranks, D) pooled of a modality, float32 or better; every rank asks for it, also one without rows.

        What is computed from it is computed by every rank in full: see `losses.gather`.
        """
        if modality not in self._gathered:
            if modality in self.encoded:
                mine = self.encoded[modality].pooled
            else:
                mine = next(self.model.project[modality].parameters()).new_zeros(0, self.model.dim)
            self._gathered[modality] = all_gather_rows(mine.to(torch.promote_types(mine.dtype, torch.float32)))
        return self._gathered[modality]

    @cached_property
    def everyone(self) -> Studies:
        """The studies of all ranks, in the order of the ranks; the same on each rank."""
        content, hashed = self._content()
        columns = [self.batch.subject[:, None], self.present.long(), content, hashed.long()]
        table = all_gather_rows(torch.cat(columns, dim=1))
        width = len(self.batch.modalities)
        subject, present, content, hashed = table.split([1, width, width, width], dim=1)
        return Studies(subject.squeeze(1), present.bool(), content, hashed.bool())

    def _gradients(self) -> contextlib.AbstractContextManager[object]:
        return torch.no_grad() if self.frozen else contextlib.nullcontext()

    def _content(self) -> tuple[Tensor, Tensor]:
        """(B, M) hashes, 0 where there is none, and (B, M) bool where there is one."""
        content = torch.zeros_like(self.present, dtype=torch.int64)
        hashed = torch.zeros_like(self.present)
        for column, modality in enumerate(self.batch.modalities):
            if modality in self.batch.content:
                content[self.present[:, column], column] = self.batch.content[modality]
                hashed[:, column] = self.present[:, column]
        return content, hashed
