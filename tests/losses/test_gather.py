"""What every rank holds, for one rank and, with the collectives played by the test, for three."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from medssml.losses import all_gather_rows, global_sum, take_part, world_size

#: The rows of three ranks: two, none, three.
ROWS = (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.empty(0, 2), torch.tensor([[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]))


@pytest.fixture(params=[0, 1, 2])
def rank(request, monkeypatch):
    """This process as one of the three; the others hold `ROWS`."""
    mine = request.param

    def all_gather(out, tensor):
        assert {part.shape for part in out} == {tensor.shape}, "collectives want equal shapes"
        counting = tensor.dtype == torch.int64
        assert torch.equal(tensor, torch.tensor([len(ROWS[mine])])) if counting else len(tensor) == 3
        for number, rows in enumerate(ROWS):
            out[number].fill_(len(rows) if counting else -1)  # what fills up the shorter ones must not be read
            if not counting:
                out[number][: len(rows)] = tensor[: len(rows)] if number == mine else rows

    monkeypatch.setattr(dist, "is_available", lambda: True)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "get_rank", lambda: mine)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "all_reduce", lambda total: total.add_(100))
    return mine


def test_the_rows_of_all_ranks_come_in_their_order_and_a_gradient_goes_to_its_own(rank):
    rows = ROWS[rank].clone().requires_grad_()
    assert world_size() == 3
    gathered = all_gather_rows(rows)
    assert torch.equal(gathered.detach(), torch.cat(ROWS))

    weights = torch.arange(10.0).reshape(5, 2)
    (gathered * weights).sum().backward()
    start = sum(len(part) for part in ROWS[:rank])
    # Times the number of ranks: what follows is a mean over them.
    assert torch.equal(rows.grad, 3 * weights[start : start + len(rows)])


def test_a_sum_over_ranks_leaves_the_share_alone_and_scales_its_gradient(rank):
    share = torch.tensor(5.0, requires_grad=True)
    total = global_sum(share)
    assert (total.item(), share.item()) == (105, 5)
    (2 * total).backward()
    assert share.grad == 6


def test_no_rank_but_this_without_torch_distributed(monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    assert world_size() == 1
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "is_available", lambda: False)
    assert world_size() == 1


def test_one_process_is_the_identity():
    rows = torch.randn(3, 2, requires_grad=True)
    assert world_size() == 1
    assert all_gather_rows(rows) is rows
    assert global_sum(rows) is rows


def test_take_part_gives_zero_gradients_even_where_a_weight_is_nan():
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.fill_(torch.nan)
    zero = take_part(layer.parameters())
    zero.backward()
    assert zero == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


def test_take_part_is_a_scalar_in_single_precision_of_every_parameter():
    parameters = [torch.ones(2, 3, dtype=torch.float64, requires_grad=True), torch.ones(4, requires_grad=True)]
    zero = take_part(iter(parameters))
    assert zero.shape == () and zero.dtype == torch.float32
    zero.backward()
    assert all(p.grad is not None for p in parameters)
