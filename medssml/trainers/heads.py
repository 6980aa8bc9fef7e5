"""The life of heads: which of an earlier training go on, which begin anew, and which leave the model."""

from __future__ import annotations

from collections.abc import Mapping

from medssml.model import MultimodalModel, Task


def begin_heads(model: MultimodalModel, tasks: Mapping[str, Task], freeze: str | int = "none") -> list[str]:
    """Gives `model` a head for each of `tasks`.

    A head of the same task goes on from its weights, without what calibrated it; one whose record differs (kind, classes,
    unit, evidence, mean and sd of a regression) begins anew. The heads of other tasks belong to encoders as they were: they
    leave, unless all but the heads stay.

    Args:
        tasks: name -> what is learned.
        freeze: see `medssml.trainers.freezing.train_only`.

    Returns:
        a line for each head of an earlier training.
    """
    said = []
    for name, earlier in list(model.tasks.items()):
        if name not in tasks and freeze == "all_but_heads":
            said.append(f"the head of {name} stays as it was, and so does all that it reads")
        elif name not in tasks:
            model.drop_task(name)
            said.append(f"the head of {name} leaves the model: what it reads is trained on without it")
        elif earlier == tasks[name]:
            model.uncalibrate(name)
            model.tasks[name] = tasks[name]
            said.append(f"the head of {name} goes on from its weights")
        else:
            model.drop_task(name)
            said.append(f"the head of {name} begins anew: it was {earlier.words}, and is {tasks[name].words}")
    for name, task in tasks.items():
        model.add_task(name, task)
    return said
