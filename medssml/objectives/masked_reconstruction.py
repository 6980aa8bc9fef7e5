"""Masked autoencoding: from a quarter of the patches, the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.batch import Inputs
from medssml.config import LeftOut
from medssml.encoders.base import MaskableEncoder
from medssml.layers import Transformer, gather_tokens
from medssml.losses import global_sum, masked_mse, normalise_patches
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp, ends, value_at
from medssml.objectives.masking import Masking, draw_masking
from medssml.objectives.step import Step


class Decoder(nn.Module):
    """Visible tokens and a mask token at each hidden place -> a light transformer -> what the patches hold."""

    def __init__(
        self, width: int, patch_dim: int, dim: int, depth: int, heads: int, place_width: int | None = None
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, dim)
        self.place = nn.Linear(width if place_width is None else place_width, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.transformer = Transformer(dim, depth, heads)
        self.predict = nn.Linear(dim, patch_dim)

    def forward(self, visible: Tensor, masking: Masking, place: Tensor, real: Tensor) -> Tensor:
        """(n, N, P) from visible tokens (n, K, D), the places (n, N, D) and the real tokens (n, N) bool."""
        return self.read(self.placed(visible, masking, place), real)

    def read(self, tokens: Tensor, real: Tensor) -> Tensor:
        """(n, N, P) what the patches hold, from tokens (n, N, dim) at their places."""
        return self.predict(self.transformer(tokens, None if bool(real.all()) else real))

    def placed(self, visible: Tensor, masking: Masking, place: Tensor) -> Tensor:
        """(n, N, dim): each visible token back at its place, the mask token at the others."""
        embedded = self.embed(visible)
        hidden = self.mask_token.to(embedded.dtype).expand(len(embedded), -1, -1)
        return gather_tokens(torch.cat([embedded, hidden], dim=1), masking.restore) + self.place(place)


class MaskedReconstruction(Objective):
    """Mean squared error of the hidden patches, each normalised by its own mean and variance (He et al. 2022, MAE).

        loss = mean over modalities of  mean over hidden real tokens of  |prediction - normalised patch|^2 / P

    The encoder computes the visible tokens only. Masks are drawn per study and modality from the study's own key. A
    modality that no study has is left out of the mean, not counted as 0. Padding is neither shown nor asked for.

    Args:
        model: the model.
        modalities: of which; all whose encoder can leave tokens out by default.
        mask_ratio: share of hidden tokens, one number (or `Ramp`) or one per modality.
        decoder_dim, decoder_depth, decoder_heads: of each modality's decoder, which is thrown away afterwards.
        weight: in the sum of objectives.

    Raises:
        ValueError: a modality whose encoder is no `MaskableEncoder`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        mask_ratio: float | Ramp | Mapping[str, float | Ramp] = 0.75,
        decoder_dim: int = 128,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        encoders = maskable(model, modalities, "MaskedReconstruction")
        self.mask_ratio = _ratios(mask_ratio, tuple(encoders))
        self.decoders = nn.ModuleDict(
            {
                name: Decoder(encoder.dim, encoder.patch_dim, decoder_dim, decoder_depth, decoder_heads)
                for name, encoder in encoders.items()
            }
        )

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the loss of each modality."""
        terms = [self._reconstruct(step, name) for name in self.decoders]
        total = global_sum(torch.stack([total for total, _ in terms]))
        count = global_sum(torch.stack([count for _, count in terms]))

        defined = count > 0
        if not defined.any():
            return None
        means = total / count.clamp(min=1)
        out = {"loss": step.mean_of_means(means, lambda other: count if other is step else self._count(other))}
        for name, mean, known in zip(self.decoders, means.detach(), defined, strict=True):
            if known:
                out[f"loss_{name}"] = mean
        return out

    def _count(self, step: Step) -> Tensor:
        """(modalities,) how many tokens of all ranks are hidden."""
        counts = step.batch.key.new_zeros(len(self.decoders))
        for place, name in enumerate(self.decoders):
            if name in step.batch.inputs:
                counts[place] = self._masking(step, name).masked.sum()
        return global_sum(counts)

    def _masking(self, step: Step, modality: str) -> Masking:
        return study_masking(step, modality, self.mask_ratio[modality], "masked_reconstruction")

    def _reconstruct(self, step: Step, modality: str) -> tuple[Tensor, Tensor]:
        """Sum of the errors of this rank's hidden tokens, and their number."""
        encoder, decoder = cast(MaskableEncoder, step.model.encoders[modality]), self.decoders[modality]
        if modality not in step.batch.inputs:
            return nothing(decoder)
        inputs = step.batch.inputs[modality]

        # Hide.
        real = encoder.token_mask(inputs)
        masking = self._masking(step, modality)
        if not masking.masked.any():
            return nothing(decoder)

        # Encode what is left, predict the rest.
        visible = step.raw(keep={modality: masking.keep})[modality].tokens
        predicted = decoder(visible, masking, encoder.positions(inputs), real)

        return masked_mse(predicted, targets_of(encoder, inputs), masking.masked)


def nothing(decoder: nn.Module) -> tuple[Tensor, Tensor]:
    """A sum of no errors and their number, of the type that `masked_mse` gives."""
    like = next(decoder.parameters())
    dtype = torch.promote_types(like.dtype, torch.float32)
    return like.new_zeros((), dtype=dtype), like.new_zeros((), dtype=torch.int64)


def study_masking(step: Step, modality: str, ratio: float | Ramp, purpose: str) -> Masking:
    """What is hidden of a modality in each study that has it; the same for the same purpose and ratio."""
    real = cast(MaskableEncoder, step.model.encoders[modality]).token_mask(step.batch.inputs[modality])
    keys, share = step.batch.key[step.batch.rows(modality)], value_at(ratio, step.clock)
    return draw_masking(real, keys, share, f"{purpose}/{modality}", seed=step.seed)


def targets_of(encoder: MaskableEncoder, inputs: Inputs) -> Tensor:
    """(n, N, P) what each token shows, of mean 0 and size 1."""
    patches = encoder.patches(inputs)
    return patches if encoder.standardised else normalise_patches(patches)


def maskable(model: MultimodalModel, modalities: Sequence[str] | None, owner: str) -> dict[str, MaskableEncoder]:
    """Modality -> its encoder, of those named, or of all that can leave tokens out.

    Raises:
        ValueError: one that cannot. LeftOut: none that can.
    """
    found = {name: encoder for name, encoder in model.encoders.items() if isinstance(encoder, MaskableEncoder)}
    wanted = tuple(found) if modalities is None else chosen(model, modalities, owner)
    for name in wanted:
        if name not in found:
            kind = type(model.encoders[name]).__name__
            raise ValueError(
                f"{owner} of {name}: its encoder {kind} cannot leave tokens out; fix: a MaskableEncoder "
                f"such as ViT, or take {name} out of `modalities`"
            )
    if not wanted:
        raise LeftOut(f"needs an encoder that can leave tokens out; none of {', '.join(model.modalities)} can")
    return {name: found[name] for name in wanted}


def _ratios(ratio: float | Ramp | Mapping[str, float | Ramp], modalities: tuple[str, ...]) -> dict[str, float | Ramp]:
    ratios = dict(ratio) if isinstance(ratio, Mapping) else dict.fromkeys(modalities, ratio)
    if set(ratios) != set(modalities) or not all(0 < end < 1 for value in ratios.values() for end in ends(value)):
        raise ValueError(
            f"mask_ratio {ratio}; expected a number between 0 and 1, or one for each of {list(modalities)}"
        )
    return ratios
