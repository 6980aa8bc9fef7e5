import ot
import pytest
import torch

from medssml.losses.ipot import ipot


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_exact_transport_of_what_is_real():
    cost = drawn(3, 4, 5)
    rows = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    columns = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    padded = torch.where(rows[:, :, None] & columns[:, None, :], cost, torch.nan)
    plan = ipot(padded, rows, columns, beta=0.1, iterations=400)
    for k in range(3):
        t, r = int(rows[k].sum()), int(columns[k].sum())
        exact = ot.emd2([1 / t] * t, [1 / r] * r, cost[k, :t, :r].numpy())
        assert float((plan[k, :t, :r] * cost[k, :t, :r]).sum()) == pytest.approx(exact, abs=1e-3)
        assert float(plan[k].sum()) == pytest.approx(1, abs=1e-6)
        assert not plan[k, t:].any() and not plan[k, :, r:].any()
    torch.testing.assert_close(plan.sum(1), columns.double() / columns.sum(1, keepdim=True), rtol=1e-6, atol=1e-9)


def test_fifty_steps_of_the_paper_written_out():
    cost = drawn(2, 3, seed=1)
    beta, plan, right = 0.5, torch.ones(2, 3, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    for _ in range(50):
        step = (-cost / beta).exp() * plan
        left = 1 / (2 * (step @ right))
        right = 1 / (3 * (step.T @ left))
        plan = left.diag() @ step @ right.diag()
    found = ipot(cost[None].requires_grad_(), torch.ones(1, 2).bool(), torch.ones(1, 3).bool())
    torch.testing.assert_close(found[0], plan)
    assert not found.requires_grad


def test_nothing_real_is_carried_nowhere():
    assert not ipot(drawn(1, 2, 3), torch.zeros(1, 2).bool(), torch.ones(1, 3).bool()).any()


def test_costs_in_half_precision_are_worked_on_in_float32():
    cost = (8 * drawn(2, 3, 4)).bfloat16()  # relative to beta far apart: in half precision the plan of a row is lost
    there = torch.ones(2, 3).bool(), torch.ones(2, 4).bool()
    plan = ipot(cost, *there)
    assert plan.dtype == torch.float32
    torch.testing.assert_close(plan, ipot(cost.float(), *there), rtol=0, atol=0)
    assert ipot(cost.double(), *there).dtype == torch.float64
