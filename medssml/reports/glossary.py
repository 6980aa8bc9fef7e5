"""The words of a page that not every reader knows."""

from __future__ import annotations

from medssml.reports.blocks import Fold, Section, Terms

TERMS = (
    (
        "AUROC",
        "The chance that a positive study gets a higher answer than a negative one: 0.5 is guessing, 1 is perfect.",
    ),
    (
        "Bayes predictor",
        "The best answer that there can be from what a study shows. It is known for simulated studies alone, as their "
        "causes are known; how far a model stays below it is the model's own loss.",
    ),
    (
        "fine-tuned, from scratch",
        "Trained from the pretrained weights, and from weights at random, on the same labels.",
    ),
    (
        "head, probe",
        "A head is the part of the model that answers a task. A probe is a simple model of the frozen embedding.",
    ),
    ("interval", "Where the value lies for 95 of 100 draws of as many subjects: it holds the doubt from few subjects."),
    ("missing pattern", "Which modalities a study has, and so which it lacks."),
    ("necessity", "What the answer loses where one modality is taken away from all that a study has."),
    (
        "quarantined",
        "Left out of training and of every figure, since a file of the study cannot be used; problems.csv says which and why.",
    ),
    (
        "Shapley value",
        "The share of one modality in a whole, averaged over all orders in which the modalities can come; the shares add up.",
    ),
    ("sufficiency", "What one modality alone adds to an answer that is given without any."),
    ("swap", "What the answer changes by when a modality is replaced by that of another subject."),
)


def glossary() -> Section:
    """The last section of a page, folded."""
    return Section("words", "Words", blocks=[Fold("What the words mean", [Terms(TERMS)])])
