"""A budget per input: what is slow, greedy or fatal costs itself alone."""

import os
import time

import numpy as np
import pytest

from medssml.checks.budget import Budget, Overrun, run_each

BUDGET = Budget(seconds=1.0, memory=256 * 2**20)


def work(job):
    if job == "slow":
        time.sleep(30)
    if job == "fatal":
        os._exit(9)
    if job == "greedy":
        return float(np.ones(2**30).sum())  # 8 GiB
    if job == "broken":
        raise KeyError("broken")
    return job * 2


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_job_has_its_result(workers):
    assert dict(run_each(work, range(100), workers=workers, budget=BUDGET)) == {n: 2 * n for n in range(100)}


@pytest.mark.parametrize(("bad", "says"), [("slow", "1 s"), ("fatal", "ended"), ("greedy", "memory")])
def test_what_leaves_its_budget_costs_its_own_result_alone(bad, says):
    jobs = [*range(20), bad, *range(20)]
    started = time.monotonic()
    results = dict(run_each(work, jobs, workers=2, budget=BUDGET))
    assert time.monotonic() - started < 15
    lost = results.pop(20)
    assert isinstance(lost, Overrun) and says in lost.reason
    assert results == {number: 2 * job for number, job in enumerate(jobs) if job != bad}


def test_a_fault_of_the_work_itself_is_raised():
    with pytest.raises(KeyError, match="broken"):
        list(run_each(work, [1, "broken"], workers=1, budget=BUDGET))


def test_no_job_no_process():
    assert list(run_each(work, [], workers=2, budget=BUDGET)) == []
