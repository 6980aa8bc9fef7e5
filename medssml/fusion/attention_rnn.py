"""Attention RNN: a recurrent state looks at one modality after the other, as often as it has steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear
from medssml.fusion.streams import streams_of
from medssml.layers import attendable, masked_softmax


class AttentionRNN(Fusion):
    """Attention over the tokens of each modality, then over the modalities, from a state s (Hori et al. 2017). In each step:

        a_ml   = softmax over real tokens l of  w_m' tanh(S_m s + V_m x_ml + b_m),     c_m = sum over l of a_ml x_ml
        beta_m = softmax over present m of      w'   tanh(S s   + V'_m c_m + b'_m)
        g      = tanh(S_g s + sum over present m of beta_m (W_m c_m + d_m) + b_g)
        s      = LSTM(g, s)

    h is the last state. An absent modality has no beta; of a study without anything the state sees g = tanh(S_g s + b_g).
    The paper writes a word per step; here `steps` is how often the state may look. V', b', W and d of each modality's own,
    and the form of g, are as remembered: no second source for these equations was found.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D. steps: of the state.

    Raises:
        ValueError: no step.
    """

    reads = "tokens"

    def __init__(self, modalities: Sequence[str], dim: int, steps: int = 3) -> None:
        super().__init__(modalities, dim)
        if steps < 1:
            raise ValueError(f"steps is {steps}; fix: at least 1")
        self.steps = steps
        count = len(self.modalities)
        self.start = nn.Parameter(torch.randn(dim) * 0.02)
        self.within = nn.ModuleDict({name: _Scores(dim) for name in self.modalities})
        self.state = nn.Linear(dim, dim, bias=False)
        self.content = OwnLinear(count, dim, dim)
        self.score = nn.Linear(dim, 1, bias=False) if count > 1 else None
        self.value = OwnLinear(count, dim, dim)
        self.join = nn.Linear(dim, dim)
        self.cell = nn.LSTMCell(dim, dim)

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused with the states as tokens (B, steps, D); see `Fusion.forward`."""
        streams = streams_of(self, encoded, present)
        state = self.start.expand(len(present), -1)
        memory = torch.zeros_like(state)
        states = []
        for _ in range(self.steps):
            # What the state sees of each modality, and of all of them.
            content = state.new_zeros(*present.shape, self.dim)
            for name, stream in streams.items():
                seen = self.within[name](state[stream.rows], stream.tokens, stream.mask).to(state.dtype)
                at = torch.full_like(stream.rows, self.modalities.index(name))
                content = content.index_put((stream.rows, at), seen)
            seen = self.join(state) + (self._weights(state, content, present) * self.value(content)).sum(1)
            state, memory = self.cell(seen.tanh().to(state.dtype), (state, memory))
            states.append(state)
        tokens = torch.stack(states, dim=1)
        return Fused(tokens, present.new_ones(tokens.shape[:2]), state)

    def _weights(self, state: Tensor, content: Tensor, present: Tensor) -> Tensor:
        """(B, M, 1) beta."""
        if self.score is None:
            return present.unsqueeze(-1).to(state.dtype)
        scores = self.score((self.state(state).unsqueeze(1) + self.content(content)).tanh()).squeeze(-1)
        return masked_softmax(scores, present).unsqueeze(-1)


class _Scores(nn.Module):
    """Additive attention of a state to tokens (Bahdanau et al. 2015)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.state = nn.Linear(dim, dim, bias=False)
        self.token = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, state: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n, D) from state (n, D), tokens (n, N, D), 0 where no token is real, and mask (n, N)."""
        scores = self.score((self.state(state).unsqueeze(1) + self.token(tokens)).tanh()).squeeze(-1)
        return torch.einsum("bn,bnd->bd", masked_softmax(scores, attendable(mask)), tokens)
