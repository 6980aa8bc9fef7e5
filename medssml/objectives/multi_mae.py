"""MultiMAE: a few visible tokens, shared out among the modalities of a study, and from them together all that is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.encoders.base import MaskableEncoder
from medssml.layers import attendable
from medssml.losses import global_sum, masked_mse
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp, ends, value_at
from medssml.objectives.draws import random_ranks, uniform
from medssml.objectives.masked_reconstruction import Decoder, maskable, nothing, targets_of
from medssml.objectives.masking import Masking, split
from medssml.objectives.step import Step


class CrossDecoder(Decoder):
    """A modality's tokens at their places, the mask token at the hidden ones -> attention to all visible tokens of the study ->
    a light transformer -> what the patches hold."""

    def __init__(self, width: int, place_width: int, patch_dim: int, dim: int, depth: int, heads: int) -> None:
        super().__init__(width, patch_dim, dim, depth, heads, place_width)
        self.memory = nn.Linear(width, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def look(self, query: Tensor, context: Tensor, seen: Tensor) -> Tensor:
        """(n, N, dim) the queries after attention to context (n, K, D) where seen (n, K)."""
        memory = self.memory(torch.where(seen.unsqueeze(-1), context, 0.0))
        mixed, _ = self.attention(
            self.norm(query), memory, memory, key_padding_mask=~attendable(seen), need_weights=False
        )
        return query + mixed


class MultiMAE(Objective):
    """loss = mean over modalities of  mean over hidden real tokens of  |prediction - normalised patch|^2 / P

    Of all tokens that a study has, the share `visible` is seen, divided among its modalities by a draw of Dirichlet(1, ..., 1):
    one modality may show nearly all of it and another nothing. Each encoder computes its visible tokens, the fusion joins
    them, and a decoder per modality restores the hidden ones with attention to the visible tokens of all. An absent modality
    has no visible token and no loss. Draws belong to the study.

    [1] Bachmann, Mizrahi, Atanov, Zamir, MultiMAE: multi-modal multi-task masked autoencoders, ECCV 2022.

    Args:
        model: the model, whose fusion reads tokens.
        modalities: of which; all whose encoder can leave tokens out by default.
        visible: share of a study's tokens; 1 / 6 as in the paper (98 of 588).
        decoder_dim, decoder_depth, decoder_heads: of each decoder, thrown away afterwards; 256, 2 and 8 as in the paper.
        weight: in the sum of objectives.

    Raises:
        ValueError: a fusion of pooled vectors, or an encoder that is no `MaskableEncoder`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        visible: float | Ramp = 1 / 6,
        decoder_dim: int = 256,
        decoder_depth: int = 2,
        decoder_heads: int = 8,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not all(0 < end < 1 for end in ends(visible)):
            raise ValueError(f"visible is {visible}; expected a share between 0 and 1")
        if model.fusion.reads != "tokens":
            kind = type(model.fusion).__name__
            raise ValueError(f"MultiMAE: {kind} reads pooled vectors; fix: tokens: all of a MaskedAttention")
        self.visible = visible
        self.decoders = nn.ModuleDict(
            {
                name: CrossDecoder(model.dim, encoder.dim, encoder.patch_dim, decoder_dim, decoder_depth, decoder_heads)
                for name, encoder in maskable(model, modalities, "MultiMAE").items()
            }
        )

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the loss of each modality."""
        terms = self._restore(step)
        total = global_sum(torch.stack([total for total, _ in terms]))
        count = global_sum(torch.stack([count for _, count in terms]))
        if not bool((count > 0).any()):
            return None
        means = total / count.clamp(min=1)
        loss = step.mean_of_means(means, lambda other: count if other is step else self._count(other))
        logged = zip(self.decoders, means.detach(), count, strict=True)
        return {"loss": loss, **{f"loss_{name}": mean for name, mean, n in logged if n > 0}}

    def _restore(self, step: Step) -> list[tuple[Tensor, Tensor]]:
        """For each modality the sum of the errors of this rank's hidden tokens, and their number."""
        maskings = self._maskings(step)
        keep = {name: masking.keep for name, masking in maskings.items() if masking.keep.shape[1] > 0}
        if not keep:
            return [nothing(decoder) for decoder in self.decoders.values()]

        # See the visible tokens; a modality that shows none is as absent as one that is not there.
        encoded = step.encode(keep=keep)
        within = torch.zeros_like(step.present)
        for name in keep:
            within[step.batch.rows(name), step.batch.column(name)] = encoded[name].mask.any(1)
        fused = step.fuse(encoded, within)

        # Restore the hidden ones of each modality.
        terms = []
        for name, decoder in self.decoders.items():
            if name not in maskings or not bool(maskings[name].masked.any()):
                terms.append(nothing(decoder))
                continue
            encoder, inputs = cast(MaskableEncoder, step.model.encoders[name]), step.batch.inputs[name]
            rows, real = step.batch.rows(name), encoder.token_mask(inputs)
            own = fused.tokens.new_zeros(len(rows), maskings[name].keep.shape[1], step.model.dim)
            if name in fused.parts:
                shown = within[rows, step.batch.column(name)].nonzero().squeeze(1)
                own = own.index_put((shown,), fused.parts[name].tokens.to(own.dtype))
            query = decoder.placed(own, maskings[name], encoder.positions(inputs))  # type: ignore[operator]
            query = decoder.look(query, fused.tokens[rows], fused.mask[rows])  # type: ignore[operator]
            predicted = decoder.read(query, real)  # type: ignore[operator]
            terms.append(masked_mse(predicted, targets_of(encoder, inputs), maskings[name].masked))
        return terms

    def _maskings(self, step: Step) -> dict[str, Masking]:
        """Modality -> which tokens of the studies that have it are hidden."""
        names = [name for name in self.decoders if name in step.batch.inputs]
        if not names:
            return {}
        real = {
            name: cast(MaskableEncoder, step.model.encoders[name]).token_mask(step.batch.inputs[name]) for name in names
        }
        tokens = real[names[0]].new_zeros(len(step.batch), len(names), dtype=torch.int64)
        for place, name in enumerate(names):
            tokens[step.batch.rows(name), place] = real[name].sum(1)
        draws = [uniform(step.batch.key, 1, f"multi_mae/share/{name}", seed=step.seed) for name in names]
        counts = shares(tokens, torch.cat(draws, dim=1), value_at(self.visible, step.clock))
        out = {}
        for place, name in enumerate(names):
            rows = step.batch.rows(name)
            noise = uniform(step.batch.key[rows], real[name].shape[1], f"multi_mae/{name}", seed=step.seed)
            out[name] = split(real[name], random_ranks(noise, real[name]), counts[rows, place])
        return out

    def _count(self, step: Step) -> Tensor:
        maskings = self._maskings(step)
        zero = step.batch.key.new_zeros(())
        return global_sum(torch.stack([maskings[n].masked.sum() if n in maskings else zero for n in self.decoders]))


def shares(tokens: Tensor, draws: Tensor, visible: float) -> Tensor:
    """How many tokens of each modality a study shows: `visible` of all, divided by Dirichlet(1, ..., 1) over what it has.

    At least one, and of two or more not all; what a modality has too few tokens for is not given to another.

    Args:
        tokens: (B, M) int64, 0 where a modality is absent. draws: (B, M) uniform numbers in [0, 1).

    Returns:
        (B, M) int64.
    """
    every = tokens.sum(1)
    wanted = (visible * every).round().long().clamp(min=1)
    wanted = torch.minimum(wanted, (every - 1).clamp(min=1))
    # Exponential numbers over their sum are Dirichlet; cumulated before they are rounded, the parts add up to the whole.
    weight = torch.where(tokens > 0, -torch.log1p(-draws.double()) + 1e-12, 0.0)
    upto = (weight / weight.sum(1, keepdim=True).clamp(min=1e-12)).cumsum(1) * wanted[:, None]
    counts = upto.round().long().diff(dim=1, prepend=tokens.new_zeros(len(tokens), 1))
    return torch.minimum(counts, tokens)
