"""The life of heads: what an earlier fine-tuning left goes on, begins anew or leaves, and it is said."""

from __future__ import annotations

import torch

from medssml.model import Task
from medssml.trainers.heads import begin_heads

from .toy import toy_model


def test_heads_of_other_tasks_leave_unless_what_they_read_stays():
    model = toy_model(tasks=("a", "b"))
    said = begin_heads(model, {"a": Task(), "new": Task("multiclass", classes=("1", "2", "4"))})
    assert list(model.tasks) == list(model.heads) == ["a", "new"]
    assert said == [
        "the head of a goes on from its weights",
        "the head of b leaves the model: what it reads is trained on without it",
    ]
    assert model.heads["new"].linear.out_features == 3

    frozen = toy_model(tasks=("a", "b"))
    said = begin_heads(frozen, {"a": Task()}, "all_but_heads")
    assert list(frozen.tasks) == ["a", "b"] and "b stays as it was" in " ".join(said)


def test_a_head_goes_on_where_its_task_is_the_same_and_begins_anew_where_not():
    model = toy_model(tasks=("a", "b"))
    weight = model.heads["a"].linear.weight.detach().clone()
    begin_heads(model, {"a": Task(counts={"train": {"0": 1, "1": 2}}), "b": Task(classes=("no", "yes"))})
    assert torch.equal(model.heads["a"].linear.weight, weight) and model.tasks["a"].counts["train"]["1"] == 2
    said = begin_heads(model, {"a": Task("regression", mean=3.0, sd=2.0), "b": Task(classes=("no", "yes"))})
    assert "begins anew: it was binary, positive is 1, and is regression, training mean 3, sd 2" in said[0]
    assert model.heads["a"].mean == 3.0 and "goes on" in said[1]
