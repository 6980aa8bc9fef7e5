"""Encoders over a few studies at a time: the same numbers and gradients as all at once, in the memory of a few."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from medssml.batch import Encoded
from medssml.encoders import TextEncoder, chunks
from medssml.encoders.base import as_encoded
from medssml.encoders.chunks import batch_statistics, in_chunks
from tests.examples import ENCODERS, VOCABULARY, EncoderExample, batch_of, study


class Alive:
    """How many numbers lie at once in what goes into and comes out of the GELUs of a module, at the most."""

    def __init__(self, module: nn.Module) -> None:
        self.held: list[tuple[StorageWeakRef, int]] = []
        self.most = 0
        for part in module.modules():
            if isinstance(part, nn.GELU):
                part.register_forward_hook(self.note)

    def note(self, _: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        self.held += [(StorageWeakRef(x.untyped_storage()), x.numel()) for x in (*given, out)]
        self.held = [(one, size) for one, size in self.held if not one.expired()]
        self.most = max(self.most, sum(size for _, size in self.held))


@contextmanager
def graph_kept() -> Iterator[None]:
    """The same chunks, with the graph of each until the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "checkpoint", lambda encode, *given, **_: encode(*given))
        yield


def encode(encoder: nn.Module, layers: int, inputs, keep) -> Encoded:
    options = {"layers": layers} if layers else {}
    return as_encoded(encoder(inputs, **options) if keep is None else encoder(inputs, keep=keep, **options))


def loss_and_gradients(encoder, inputs, size, *, keep=None, layers=0) -> list[Tensor]:
    """What all rows say together, so that a row's gradient hangs on the others."""
    torch.manual_seed(5)
    encoder.zero_grad()
    found = in_chunks(partial(encode, encoder, layers), inputs, keep, size)
    tokens = torch.where(found.mask[..., None], found.tokens, 0.0).sum(1)
    loss = (tokens @ found.pooled.T).softmax(1).diagonal().sum() + found.pooled.std(0).square().sum()
    loss = loss + sum(layer.square().mean() for layer in found.layers)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]


def rows_of(modality: str, count: int, dtype: torch.dtype = torch.float32):
    studies = [study(n, (modality,)) for n in range(count)]
    return batch_of(studies, dtype, modalities=(modality,)).inputs[modality]


@pytest.mark.parametrize("label", ENCODERS)
@pytest.mark.parametrize("layers", [0, 1])
def test_an_encoder_gives_and_learns_the_same(label: str, layers: int) -> None:
    example: EncoderExample = ENCODERS[label]
    torch.manual_seed(0)
    encoder, inputs = example.make().double().eval(), rows_of(example.modality, 7, torch.float64)
    whole = loss_and_gradients(encoder, inputs, None, layers=layers)
    for size in (1, 3, 7):
        for one, other in zip(loss_and_gradients(encoder, inputs, size, layers=layers), whole, strict=True):
            torch.testing.assert_close(one, other)


def test_a_row_keeps_its_own_tokens() -> None:
    torch.manual_seed(0)
    encoder, inputs = ENCODERS["ViT 3D"].make().double().eval(), rows_of("ct", 5, torch.float64)
    keep = torch.stack([torch.randperm(8)[:3] for _ in range(5)])
    found = loss_and_gradients(encoder, inputs, 2, keep=keep)
    for one, other in zip(found, loss_and_gradients(encoder, inputs, None, keep=keep), strict=True):
        torch.testing.assert_close(one, other)


def test_the_second_pass_drops_what_the_first_dropped() -> None:
    torch.manual_seed(0)
    encoder, inputs = TextEncoder(VOCABULARY, 24, 1, 2, max_length=32, dropout=0.3).train(), rows_of("report", 7)
    with graph_kept():
        expected = loss_and_gradients(encoder, inputs, 3)
    found = loss_and_gradients(encoder, inputs, 3)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], loss_and_gradients(encoder.eval(), inputs, 3)[0]), "dropout did nothing"


def test_the_second_pass_has_the_precision_of_the_first() -> None:
    """The backward pass lies outside autocast, as a trainer calls it."""

    def gradients() -> list[Tensor]:
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            found = in_chunks(partial(encode, encoder, 0), inputs, None, 3)
        assert found.tokens.dtype == torch.bfloat16
        found.tokens.float().square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    torch.manual_seed(0)
    encoder, inputs = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)), torch.randn(7, 4)
    with graph_kept():
        expected = gradients()
    assert all(torch.equal(one, other) for one, other in zip(gradients(), expected, strict=True))


def test_activations_do_not_grow_with_the_rows() -> None:
    most = {}
    for rows, size in ((8, 4), (24, 4), (24, None)):
        torch.manual_seed(0)
        encoder = ENCODERS["ViT 2D cls"].make().train()
        alive = Alive(encoder)
        loss_and_gradients(encoder, rows_of("xray", rows), size)
        most[rows, size] = alive.most
    assert most[24, 4] == most[8, 4]
    assert most[24, None] >= 5 * most[24, 4]


def test_few_rows_pass_once_and_without_gradients_nothing_passes_twice() -> None:
    encoder, calls = nn.Linear(3, 2), []
    encoder.register_forward_pre_hook(lambda *_: calls.append(1))

    def passes(rows: int, gradients: bool) -> int:
        calls.clear()
        with torch.set_grad_enabled(gradients):
            found = in_chunks(partial(encode, encoder, 0), torch.randn(rows, 3), None, 4)
        if gradients:
            found.pooled.sum().backward()
        return len(calls)

    assert (passes(4, True), passes(9, False), passes(9, True)) == (1, 3, 6)


def test_chunks_of_an_encoder_that_leaves_padding_out_are_filled_up() -> None:
    def trimmed(inputs: Tensor, keep: None) -> Encoded:
        longest = int((inputs != 0).sum(1).max())
        tokens, mask = inputs[:, :longest, None].expand(-1, -1, 2), inputs[:, :longest] != 0
        return Encoded(tokens, mask, inputs[:, :2], (tokens,))

    inputs = torch.tensor([[1.0, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 0]])
    found, whole = in_chunks(trimmed, inputs, None, 1), trimmed(inputs, None)
    for one, other in zip((*found[:3], *found.layers), (*whole[:3], *whole.layers), strict=True):
        assert torch.equal(one, other)


def test_norms_over_the_batch_are_found_where_they_see_it() -> None:
    norm = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert batch_statistics(norm.train()) == "BatchNorm1d" and batch_statistics(norm.eval()) is None
    assert batch_statistics(nn.BatchNorm2d(2, track_running_stats=False).eval()) == "BatchNorm2d"
    assert batch_statistics(nn.Sequential(nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm1d(2))) is None
