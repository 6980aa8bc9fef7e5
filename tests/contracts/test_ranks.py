"""2 gloo ranks with half the batch each give the loss and the gradients of 1 rank with the whole batch."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from medssml.losses import all_gather_rows, global_sum, take_part
from tests.examples import OBJECTIVES, step_of, study, ten_studies, tiny_model

#: name -> (studies of rank 0, studies of rank 1)
SPLITS = {
    "equal": lambda: (ten_studies()[:5], ten_studies()[5:]),
    "ragged": lambda: (ten_studies()[:7], ten_studies()[7:]),
    "no X-ray and no report on rank 1": lambda: (
        ten_studies()[:4],
        [study(20, ("ct", "eeg")), study(21, ("ct", "eeg")), study(22, ("ct",))],
    ),
    "nothing at all on rank 0": lambda: ([study(8, ())], ten_studies()[:6]),
    "pairs across ranks only": lambda: ([study(30, ("ct", "report"))], [study(31, ("ct", "report"))]),
    "duplicates and one subject across ranks": lambda: (
        [study(40, ("ct", "report"), subject=7), study(41, ("ct", "report"))],
        [study(42, ("ct", "report"), subject=7), study(41, ("ct", "report"), subject=9), study(43, ("ct", "report"))],
    ),
}

#: One fixture takes a step of every objective in two processes: more than a test may take on a machine that does other work.
pytestmark = pytest.mark.timeout(1200)


def build():
    """Label -> a model and its objective; a model for each, as some objectives want it changed."""
    found = {}
    for name, make in OBJECTIVES.items():
        model = tiny_model()
        torch.manual_seed(1)
        objective = make(model).double()
        model.double().standardise.eval()  # its statistics follow the first batches, of which there is one here
        found[name] = model, objective
    return found


def learn(model, objective, studies, everyone):
    """The loss, and the gradients as the trainer and DistributedDataParallel make them."""
    parameters = {**dict(model.named_parameters()), **dict(objective.named_parameters(prefix="objective"))}
    answer = objective(step_of(model, objective, studies, dtype=torch.float64, epoch_of=everyone))
    loss = take_part(parameters.values()) + (0.0 if answer is None else answer["loss"])
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    if dist.is_initialized():
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
    logged = None if answer is None else {key: value.detach() for key, value in answer.items()}
    return logged, dict(zip(parameters, gradients, strict=True))


def gather_ragged(rank):
    """Rows of rank 0: 3, of rank 1: none. Each rank adds up the whole, weighted; the gradient is the weight."""
    mine = torch.arange(6.0).reshape(3, 2) if rank == 0 else torch.zeros(0, 2)
    mine.requires_grad_()
    rows = all_gather_rows(mine)
    (rows * torch.tensor([1.0, 10.0])).sum().backward()
    total = global_sum(torch.tensor([float(rank + 1)]))
    return rows.detach(), mine.grad / 2, total  # / 2: the mean over ranks that DistributedDataParallel takes


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    examples = build()
    found = {
        (split, name): learn(model, objective, make()[rank], sum(make(), []))
        for split, make in SPLITS.items()
        for name, (model, objective) in examples.items()
    }
    torch.save({"objectives": found, "gather": gather_ragged(rank)}, os.path.join(folder, f"rank{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    return build()


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("split", SPLITS)
def test_two_ranks_are_one(ranks, alone, split, name):
    first, second = SPLITS[split]()
    logged, gradients = learn(*alone[name], first + second, first + second)
    for rank in ranks:
        found, reduced = rank["objectives"][split, name]
        assert (found is None) == (logged is None)
        if logged is not None:
            assert set(found) == set(logged)
            for key, value in logged.items():
                torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
        for key, gradient in gradients.items():
            torch.testing.assert_close(reduced[key], gradient, rtol=1e-6, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
def test_ragged_rows_are_gathered_with_gradients(ranks):
    for rank, found in enumerate(ranks):
        rows, gradient, total = found["gather"]
        assert torch.equal(rows, torch.arange(6.0).reshape(3, 2))
        assert torch.equal(gradient, torch.tensor([[1.0, 10.0]] * (3 if rank == 0 else 0)).reshape(-1, 2))
        assert total.item() == 3
