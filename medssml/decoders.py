"""What writes: a decoder from what a study shows to the words of its report."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.config import Configured


class ReportDecoder(Configured, nn.Module):
    """p(word | words before it, what the study shows): causal self-attention, then attention to the fused tokens.

    Vaswani et al. 2017, pre-norm. The embedding of the words is also the output layer (Press and Wolf 2017).

    Args:
        vocab_size: of the tokenizer. width: D of the fused tokens.
        dim, depth, heads: of the decoder. max_length: longest text, in tokens.
        start, end, pad: ids of the tokens that begin, end and fill up a text.
        dropout: in the layers.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        *,
        dim: int = 128,
        depth: int = 2,
        heads: int = 4,
        max_length: int = 256,
        start: int = 2,
        end: int = 3,
        pad: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.start, self.end, self.pad, self.max_length = start, end, pad, max_length
        self.words = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.words.weight, std=0.02)
        self.place = nn.Parameter(torch.randn(max_length, dim) * 0.02)
        self.memory = nn.Linear(width, dim)
        layer = nn.TransformerDecoderLayer(
            dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, depth, norm=nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, input_ids: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n, L, vocab) logits of the word after each of input_ids (n, L); what is shown: tokens (n, N, D), mask (n, N)."""
        length = input_ids.shape[1]
        x = self.words(input_ids) + self.place[:length]
        memory = self.memory(torch.where(mask.unsqueeze(-1), tokens, 0.0))
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        x = self.layers(x, memory, tgt_mask=later, memory_key_padding_mask=~mask)
        return x @ self.words.weight.T + self.bias

    @torch.no_grad()
    def write(
        self, tokens: Tensor, mask: Tensor, *, longest: int | None = None, beams: int = 1, length_penalty: float = 1.0
    ) -> Tensor:
        """(n, L) ids of what is written of n studies, from what they show; `pad` after the end.

        Args:
            tokens: (n, N, D). mask: (n, N) bool.
            longest: tokens at most.
            beams: 1 takes the likeliest word after word; more keep as many texts and take the likeliest in the end.
            length_penalty: the power of the number of words that the log-probability of a text is divided by.

        Raises:
            ValueError: fewer than one beam.
        """
        if beams < 1:
            raise ValueError(f"beams is {beams}; fix: 1 or more")
        longest = self.max_length if longest is None else min(longest, self.max_length)
        if beams > 1 and len(tokens) > 0:
            return self._search(tokens, mask, longest, beams, length_penalty)
        written = tokens.new_full((len(tokens), 1), self.start, dtype=torch.int64)
        over = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        while written.shape[1] < longest and not bool(over.all()):
            word = self(written, tokens, mask)[:, -1].argmax(-1).masked_fill(over, self.pad)
            over = over | (word == self.end)
            written = torch.cat([written, word[:, None]], dim=1)
        return written

    def _search(self, tokens: Tensor, mask: Tensor, longest: int, beams: int, penalty: float) -> Tensor:
        """Beam search; a text that has ended keeps its place among the beams at the cost that it has."""
        n = len(tokens)
        tokens, mask = tokens.repeat_interleave(beams, 0), mask.repeat_interleave(beams, 0)
        written = tokens.new_full((n, beams, 1), self.start, dtype=torch.int64)
        # All beams begin alike: one of them is enough.
        total = tokens.new_full((n, beams), -torch.inf, dtype=torch.float32)
        total[:, 0] = 0
        over = torch.zeros_like(total, dtype=torch.bool)
        while written.shape[2] < longest and not bool(over.all()):
            score = self(written.flatten(0, 1), tokens, mask)[:, -1].float().log_softmax(-1).view(n, beams, -1)
            ended = torch.full_like(score, -torch.inf)
            ended[..., self.pad] = 0
            score = total[..., None] + torch.where(over[..., None], ended, score)
            total, best = score.flatten(1).topk(beams, dim=1)
            parent, word = best // score.shape[2], best % score.shape[2]
            written = torch.cat(
                [written.gather(1, parent[..., None].expand(-1, -1, written.shape[2])), word[..., None]], 2
            )
            over = over.gather(1, parent) | (word == self.end)
        lengths = (written[..., 1:] == self.end).int().argmax(2) + 1
        lengths = torch.where(over, lengths, written.shape[2] - 1).clamp(min=1)
        chosen = (total / lengths**penalty).argmax(1)
        return written[torch.arange(n, device=written.device), chosen]


__all__ = ["ReportDecoder"]
