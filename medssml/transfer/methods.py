"""The transfers by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Sequence

from medssml.model import MultimodalModel
from medssml.transfer.answers import AnswerTransfer
from medssml.transfer.base import Transfer
from medssml.transfer.contrast import ContrastiveTransfer
from medssml.transfer.features import FeatureTransfer
from medssml.transfer.logits import LogitTransfer
from medssml.transfer.privileged import PrivilegedTransfer
from medssml.transfer.relations import RelationTransfer

METHODS: dict[str, type[Transfer]] = {
    "logits": LogitTransfer,
    "privileged": PrivilegedTransfer,
    "features": FeatureTransfer,
    "relations": RelationTransfer,
    "contrast": ContrastiveTransfer,
}


def asks_answers(method: str) -> bool:
    """Whether the teacher has to know the tasks.

    Raises:
        ValueError: no such method.
    """
    if method not in METHODS:
        raise ValueError(f"--method {method!r} is unknown; accepted: {', '.join(METHODS)}")
    return issubclass(METHODS[method], AnswerTransfer)


def transfer_of(
    method: str,
    student: MultimodalModel,
    teacher: MultimodalModel,
    source: Sequence[str],
    tasks: Sequence[str],
    weight: float,
) -> Transfer:
    """The objective of a method, its own weights drawn from the global generator.

    Args:
        source: what the teacher is shown. tasks: that the student learns, with a head for each. weight: beside labels of 1.
    """
    kind = METHODS[method]
    if issubclass(kind, AnswerTransfer):
        return kind(student, source=source, tasks=tasks, weight=weight)
    if issubclass(kind, (FeatureTransfer, ContrastiveTransfer)):
        return kind(student, source=source, teacher_dim=teacher.dim, weight=weight)
    return kind(student, source=source, weight=weight)
