"""What writes: a decoder from what a study shows to the words of its report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.config import Configured

#: Texts that are drawn at once.
ROWS = 4096


class ReportDecoder(Configured, nn.Module):
    """p(word | words before it, what the study shows): causal self-attention, then attention to the fused tokens.

    Vaswani et al. 2017, pre-norm. The embedding of the words is also the output layer (Press and Wolf 2017). Beside the tokens
    that are shown there is always one that was learned and stands for knowing nothing: attention weighs what is shown
    against it, as a posterior mean weighs evidence against the prior, and where nothing is shown it is all there is.

    What all studies share of a modality's token grows in training to many times what tells them apart, and attention that has
    learned to look away from it gets no gradient any more. So tokens are read without their mean, by the latest `observe`; as
    they are before. Their scale stays: it says how much a modality has to tell.

    Args:
        vocab_size: of the tokenizer. width: D of the fused tokens.
        dim, depth, heads: of the decoder. max_length: longest text, in tokens.
        start, end, pad: ids of the tokens that begin, end and fill up a text.
        dropout: in the layers.
        slots: the number N of fused tokens, where each is always of the same modality and has a mean of its own; 1 where all
            share one.
        unread: slots that are never attended to.
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
        slots: int = 1,
        unread: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(slots, width))
        self.mean: Tensor
        self.unread = list(unread)
        self.start, self.end, self.pad, self.max_length = start, end, pad, max_length
        self.words = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.words.weight, std=0.02)
        self.place = nn.Parameter(torch.randn(max_length, dim) * 0.02)
        self.memory = nn.Linear(width, dim)
        self.nothing = nn.Parameter(torch.zeros(1, dim))
        layer = nn.TransformerDecoderLayer(
            dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, depth, norm=nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, input_ids: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n, L, vocab) logits of the word after each of input_ids (n, L); what is shown: tokens (n, N, D), mask (n, N)."""
        length = input_ids.shape[1]
        memory, hidden = self._memory(tokens, mask)
        later = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).triu(1)
        x = self.words(input_ids) + self.place[:length]
        x = self.layers(x, memory, tgt_mask=later, memory_key_padding_mask=hidden)
        return x @ self.words.weight.T + self.bias

    @torch.no_grad()
    def observe(self, shown: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Takes the mean of each slot from what studies show: batches of tokens (n, N, D) and mask (n, N) bool.

        A slot of which no token is there stays as it is.
        """
        for slot in range(len(self.mean)):
            parts = [tokens[mask] if len(self.mean) == 1 else tokens[mask[:, slot], slot] for tokens, mask in shown]
            found = torch.cat(parts)
            if len(found):
                self.mean[slot] = found.mean(0)

    def _memory(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to, (n, 1 + N, dim), and (n, 1 + N) bool, what of it is not there."""
        mask = mask.clone()
        mask[:, self.unread] = False
        shown = self.memory(torch.where(mask.unsqueeze(-1), tokens - self.mean, 0.0))
        nothing = self.nothing.to(shown.dtype).expand(len(shown), 1, -1)
        return torch.cat([nothing, shown], dim=1), torch.cat([mask.new_zeros(len(mask), 1), ~mask], dim=1)

    def started(self, tokens: Tensor, mask: Tensor) -> Writer:
        """Writes n texts word after word, from what is shown: tokens (n, N, D), mask (n, N)."""
        return Writer(self, *self._memory(tokens, mask))

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
        return self._written(self.started(tokens, mask), len(tokens), longest, lambda logits, _: logits.argmax(-1))

    def _written(self, text: Writer, n: int, longest: int, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """(n, L) ids; `choose` takes the next words, (n,), from their logits (n, vocab) and their place."""
        words = [torch.full((n,), self.start, device=self.bias.device)]
        over = torch.zeros_like(words[0], dtype=torch.bool)
        while len(words) < longest and not bool(over.all()):
            word = choose(text.next(words[-1]), len(words)).masked_fill(over, self.pad)
            over = over | (word == self.end)
            words.append(word)
        return torch.stack(words, dim=1)

    @torch.no_grad()
    def draft(self, tokens: Tensor, mask: Tensor, count: int, *, longest: int | None = None, seed: int = 0) -> Tensor:
        """(n, count, L) ids of `count` texts drawn for each of n studies, word after word by their probabilities; `pad` after
        the end.

        All studies are drawn with the same random numbers, spread evenly over the texts (a Latin hypercube [1]): what is
        drawn of a study depends on no other, and what differs between two studies is what they show.

        [1] McKay, Beckman and Conover, Technometrics 1979.

        Args:
            tokens: (n, N, D). mask: (n, N) bool.
            longest: tokens at most. seed: draws others.

        Raises:
            ValueError: fewer than one text.
        """
        if count < 1:
            raise ValueError(f"drafts is {count}; fix: 1 or more")
        longest = self.max_length if longest is None else min(longest, self.max_length)
        spread = _spread(count, longest, seed).to(tokens.device)
        parts = [
            self._drawn(tokens[start : start + size], mask[start : start + size], spread)
            for size in (max(1, ROWS // count),)
            for start in range(0, len(tokens), size)
        ]
        width = max((part.shape[2] for part in parts), default=1)
        parts = [nn.functional.pad(part, (0, width - part.shape[2]), value=self.pad) for part in parts]
        return torch.cat(parts) if parts else mask.new_zeros(0, count, 1, dtype=torch.int64)

    def _drawn(self, tokens: Tensor, mask: Tensor, spread: Tensor) -> Tensor:
        """(n, count, L) texts by inversion of the cumulative probabilities at spread (count, longest)."""
        n, (count, longest) = len(tokens), spread.shape
        text = self.started(tokens.repeat_interleave(count, 0), mask.repeat_interleave(count, 0))
        at = spread.repeat(n, 1)

        def choose(logits: Tensor, place: int) -> Tensor:
            below = logits.softmax(-1).cumsum(-1)
            word = (below < at[:, place, None] * below[:, -1:]).sum(-1)
            return word.clamp(max=below.shape[1] - 1)

        return self._written(text, n * count, longest, choose).view(n, count, -1)

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


class Writer:
    """Texts that are being written, a word of each at a time: what a layer made of earlier words is kept.

    Args:
        decoder: whose words. memory: (n, 1 + N, dim) what is attended to. hidden: (n, 1 + N) bool, what of it is not there.
    """

    def __init__(self, decoder: ReportDecoder, memory: Tensor, hidden: Tensor) -> None:
        self.decoder, self.memory, self.hidden = decoder, memory, hidden
        self.before: list[Tensor] = [memory[:, :0] for _ in decoder.layers.layers]

    def next(self, words: Tensor) -> Tensor:
        """(n, vocab) float32 logits of the words after `words` (n,), which come after all that were given before."""
        decoder = self.decoder
        x = decoder.words(words)[:, None] + decoder.place[self.before[0].shape[1]]
        for number, layer in enumerate(cast(Iterable[nn.TransformerDecoderLayer], decoder.layers.layers)):
            # The layer's own sums, for the last word alone; earlier ones do not see it.
            own = layer.norm1(x)
            self.before[number] = every = torch.cat([self.before[number], own], dim=1)
            x = x + layer.self_attn(own, every, every, need_weights=False)[0]
            asked = layer.norm2(x)
            x = x + layer.multihead_attn(asked, self.memory, self.memory, self.hidden, need_weights=False)[0]
            x = x + layer.linear2(layer.activation(layer.linear1(layer.norm3(x))))
        x = cast(nn.Module, decoder.layers.norm)(x)[:, 0]
        return (x @ decoder.words.weight.T + decoder.bias).float()


def _spread(count: int, longest: int, seed: int) -> Tensor:
    """(count, longest) numbers in [0, 1): in each column one in each count-th part, in random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(longest, count, generator=generator).argsort(dim=1).T
    return (order + torch.rand(count, longest, generator=generator)) / count


__all__ = ["ReportDecoder", "Writer"]
