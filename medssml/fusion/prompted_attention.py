"""Missing-aware prompts: learned tokens that tell a transformer which modalities a study has and which it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.fusion.masked_attention import MaskedAttention


class PromptedAttention(MaskedAttention):
    """Masked attention whose first blocks also read the study's prompts: P_{l,m,1} for each modality that is present, and
    P_{l,m,0} for each that is absent.

    Block l of the first `prompted` reads [prompts of l; tokens] and hands on the tokens, as in deep prompts; an absent modality
    is L learned tokens and no masked ones alone. Prompts of [1] belong to each of the 3 patterns of two modalities; here to each
    modality's being there or not, so that M modalities need 2 M of them and not 2^M, and a pattern that training
    never showed has prompts, too. As in [1] a pretrained transformer can be kept as it is: `optim.scales:
    {fusion.transformer: 0}`; its weights have the names of `MaskedAttention`.

    [1] Lee et al., Multimodal prompting with missing modalities for visual recognition, CVPR 2023.

    Args:
        modalities, dim, depth, heads, tokens, mlp_ratio, dropout: as of `MaskedAttention`.
        length: L, tokens of each prompt; [1] has 16. prompted: how many first blocks read prompts; None for all.

    Raises:
        ValueError: no prompt, or more prompted blocks than there are.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        depth: int = 2,
        heads: int = 4,
        tokens: str = "pooled",
        *,
        length: int = 4,
        prompted: int | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(modalities, dim, depth, heads, tokens, mlp_ratio=mlp_ratio, dropout=dropout)
        blocks = depth if prompted is None else prompted
        if length < 1 or not 1 <= blocks <= depth:
            raise ValueError(
                f"length {length}, prompted {prompted} of {depth} blocks; fix: at least 1, at most all blocks"
            )
        self.prompts = nn.Parameter(torch.randn(blocks, len(self.modalities), 2, length, dim) * 0.02)

    def mixed(self, tokens: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """See `MaskedAttention.mixed`."""
        columns = torch.arange(len(self.modalities), device=present.device)
        own = self.prompts[:, columns, present.long()].flatten(2, 3)  # (blocks, B, M L, D)
        count = own.shape[2]
        mask = torch.cat([seen.new_ones(len(seen), count), seen], dim=1)
        for place, block in enumerate(self.transformer.blocks):
            if place < len(own):
                tokens = block(torch.cat([own[place].to(tokens.dtype), tokens], dim=1), mask)[:, count:]
            else:
                tokens = block(tokens, seen)
        return self.transformer.norm(tokens)
