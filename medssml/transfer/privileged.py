"""Transfer of privileged information: what only training studies have softens their labels."""

from __future__ import annotations

from medssml.objectives.divergence import soft_label_divergence
from medssml.transfer.answers import AnswerTransfer


class PrivilegedTransfer(AnswerTransfer):
    """loss = mean over tasks and studies that both see of  KL(softmax(teacher / T) | softmax(student))

    Generalised distillation [1]: the teacher has learned from the privileged modalities, the student from labels and from the
    teacher's soft labels, (1 - l) CE(label) + l CE(soft label), the second of which is this loss but for a constant. Beside
    labels of weight 1 a weight w is l = w / (1 + w), up to a common factor. Unlike in `LogitTransfer` the student's own answer
    is not tempered: it learns how sure the teacher is.

    [1] Lopez-Paz, Bottou, Schölkopf, Vapnik, Unifying distillation and privileged information, ICLR 2016.

    Args: as of `AnswerTransfer`.
    """

    imitation = staticmethod(soft_label_divergence)
