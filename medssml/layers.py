"""Transformer blocks and masked means: what encoders, fusion operators and decoders are made of.

All of it takes a key mask, so that a token that is not real moves nothing, and runs in bf16 under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, D) mean of the tokens (B, N, D) where mask (B, N) is True; zero for a row without any.

    `where` and not a product: 0 * NaN is NaN.
    """
    total = torch.where(mask.unsqueeze(-1), tokens, 0.0).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1).to(total.dtype)


def masked_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """(..., M) softmax over what is present (..., M) bool; 0 elsewhere, and everywhere where nothing is."""
    lowest = torch.finfo(scores.dtype).min
    return torch.where(present, F.softmax(torch.where(present, scores, lowest), dim=-1), 0.0)


def attendable(mask: Tensor) -> Tensor:
    """(B, N) mask whose empty rows may see their first token: a softmax over nothing is NaN."""
    empty = ~mask.any(1, keepdim=True)
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (empty & first)


def gather_tokens(tokens: Tensor, keep: Tensor) -> Tensor:
    """(B, K, ...) the tokens (B, N, ...) at keep (B, K)."""
    rows = torch.arange(keep.shape[0], device=keep.device).unsqueeze(1)
    return tokens[rows, keep]


def sincos_positions(positions: Tensor, dim: int) -> Tensor:
    """(N, dim) sine-cosine code of positions (N, S), S coordinates each; columns left over are zero.

    Each coordinate gets dim // (2 S) frequencies from 1 down to 1 / 10000, as in Vaswani et al. 2017.
    """
    axes = positions.shape[1]
    count = dim // (2 * axes)
    if count == 0:
        raise ValueError(f"dim {dim} is too small for {axes} coordinates; it must be at least {2 * axes}")
    frequency = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
    angle = positions.double().unsqueeze(-1) * frequency
    code = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return F.pad(code, (0, dim - code.shape[1])).float()


def grid_positions(grid: Sequence[int]) -> Tensor:
    """(N, S) integer coordinates of a grid in row-major order, as floats."""
    axes = [torch.arange(size, dtype=torch.float32) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


class Attention(nn.Module):
    """Multi-head self-attention, softmax(Q K^T / sqrt(d)) V over the keys that are real (Vaswani et al. 2017)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"dim {dim} is no multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) from x (B, N, D); mask (B, N) is True for keys that may be seen, None for all."""
        batch, length, dim = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        keys = None if mask is None else mask[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, dim))


class CrossAttention(nn.Module):
    """Multi-head attention of x to a context, softmax(Q K^T / sqrt(d)) V with K and V of the context's real tokens.

    A row whose context has no real token gets 0: whoever adds it to x leaves x as it is.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads != 0:
            raise ValueError(f"dim {dim} is no multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) from x (B, N, D), context (B, K, D) and its mask (B, K) bool, True for keys that may be seen."""
        if context.shape[1] == 0:
            return torch.zeros_like(x)
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        keys = attendable(mask)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=dropout)
        out = self.out(mixed.transpose(1, 2).flatten(2))
        return torch.where(mask.any(1)[:, None, None], out, 0.0)


class CrossBlock(nn.Module):
    """Pre-norm block of attention to a context: x + cross-attention(norm(x), norm(context)), then x + mlp(norm(x))."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads, dropout)
        self.norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, mlp_ratio, dropout)
        self.apply(initialise)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) from x (B, N, D), context (B, K, D) and its mask (B, K); see `CrossAttention`."""
        x = x + self.attention(self.norm_query(x), self.norm_context(context), mask)
        return x + self.mlp(self.norm(x))


def mlp(dim: int, ratio: float = 4.0, dropout: float = 0.0) -> nn.Sequential:
    """The two-layer perceptron of a transformer block, D -> ratio D -> D."""
    hidden = int(dim * ratio)
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim), nn.Dropout(dropout)
    )


class DropPath(nn.Module):
    """Leaves the residual branch out for whole samples, with probability `rate` (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (B, N, D), each sample kept and scaled by 1 / (1 - rate), or zero."""
        if self.rate == 0.0 or not self.training:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, 1), self.rate)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim, mlp_ratio, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) from x (B, N, D) and the key mask (B, N)."""
        x = x + self.drop_path(self.attention(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """`depth` pre-norm blocks and a final norm; the drop-path rate rises linearly with depth."""

    def __init__(
        self, dim: int, depth: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, dropout, rate) for rate in rates])
        self.norm = nn.LayerNorm(dim)
        self.apply(initialise)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) from x (B, N, D); mask (B, N) True where a token is real, None when all are."""
        return self.with_layers(x, mask, 0)[0]

    def with_layers(self, x: Tensor, mask: Tensor | None, count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same, and the outputs (B, N, D) of the last `count` blocks, before the final norm.

        Raises:
            ValueError: there are not as many blocks.
        """
        if not 0 <= count <= len(self.blocks):
            raise ValueError(f"{count} layers are asked for; this transformer has {len(self.blocks)} blocks")
        if mask is not None:
            mask = attendable(mask)
        layers: list[Tensor] = []
        for place, block in enumerate(self.blocks):
            x = block(x, mask)
            if place >= len(self.blocks) - count:
                layers.append(x)
        return self.norm(x), tuple(layers)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as in the MAE paper (He et al. 2022)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
