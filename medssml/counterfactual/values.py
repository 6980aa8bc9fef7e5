"""What a coalition is worth: the number that impact is measured in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medssml.statistics.bootstrap import Array

#: Name of a value function -> what a page says of it.
VALUES = {
    "positive": "probability of the positive class",
    "logit": "logit of the positive class",
    "predicted": "probability of the class that is predicted from all modalities of the study",
    "label": "probability of the true class",
    "log_likelihood": "log of the probability of the true class",
    "output": "predicted value",
}
DEFAULT = {"binary": "positive", "multiclass": "predicted", "regression": "output"}
ALLOWED = {
    "binary": ("positive", "logit", "predicted", "label", "log_likelihood"),
    "multiclass": ("predicted", "logit", "label", "log_likelihood"),
    "regression": ("output",),
}


def check_value(kind: str, name: str | None) -> str:
    """The name of a value function of a kind of task; its default for None.

    Raises:
        ValueError: unknown, or not of this kind of task.
    """
    name = DEFAULT[kind] if name is None else name
    if name not in ALLOWED[kind]:
        raise ValueError(f"value {name!r} is not for a {kind} task; accepted: {', '.join(ALLOWED[kind])}")
    return name


@dataclass(frozen=True)
class Value:
    """A value function: outputs of a model about a study -> one number.

    Args:
        kind: binary, multiclass or regression.
        name: a key of `VALUES`.
        category: (N,) class that each study's value is about; NaN where it has none (no label).
    """

    kind: str
    name: str
    category: Array

    @classmethod
    def of(cls, kind: str, name: str | None, factual: Array, target: Array) -> Value:
        """The value function of N studies.

        Args:
            kind: of the task.
            name: a key of `VALUES`; None for the default of the kind.
            factual: (N,) or (N, K) logits from all that each study has.
            target: (N,) classes, NaN where unlabelled.

        Raises:
            ValueError: unknown, or not of this kind of task.
        """
        name = check_value(kind, name)
        predicted = (factual > 0).astype(float) if kind != "multiclass" else factual.argmax(axis=-1).astype(float)
        if name in ("label", "log_likelihood"):
            return cls(kind, name, np.asarray(target, dtype=float))
        if name == "predicted" or kind == "multiclass":
            return cls(kind, name, predicted)
        return cls(kind, name, np.ones(len(factual)))

    @property
    def words(self) -> str:
        """What a page says of it."""
        return (
            "logit of the predicted class" if (self.kind, self.name) == ("multiclass", "logit") else VALUES[self.name]
        )

    @property
    def has_truth(self) -> bool:
        """Whether the best possible probability of the positive class tells what it would be for the best reader.

        Not for the predicted class: the best reader predicts another one.
        """
        return self.kind == "binary" and self.name != "predicted"

    @property
    def defined(self) -> Array:
        """(N,) bool: studies that have a value."""
        return np.isfinite(self.category)

    def __call__(self, outputs: Array, studies: Array) -> Array:
        """Values (B, ...) of outputs (B, ...) or (B, ..., K), logits about the studies (B,)."""
        outputs = np.asarray(outputs, dtype=np.float64)
        if self.kind == "regression":
            return outputs
        category = self.category[studies]
        if self.kind == "multiclass":
            return self._of_class(outputs, category.astype(int))
        sign = np.where(category > 0, 1.0, -1.0).reshape(-1, *[1] * (outputs.ndim - 1))
        if self.name == "logit":
            return outputs
        log_probability = -np.logaddexp(0.0, -sign * outputs)
        return log_probability if self.name == "log_likelihood" else np.exp(log_probability)

    def _of_class(self, outputs: Array, category: Array) -> Array:
        if self.name != "logit":
            outputs = outputs - np.logaddexp.reduce(outputs, axis=-1, keepdims=True)
        index = category.reshape(-1, *[1] * (outputs.ndim - 1))
        chosen = np.take_along_axis(outputs, np.broadcast_to(index, (*outputs.shape[:-1], 1)), axis=-1)[..., 0]
        return chosen if self.name in ("logit", "log_likelihood") else np.exp(chosen)

    def of_others(self, outputs: Array, studies: Array) -> tuple[Array, Array]:
        """What is expected of a study that nothing is known of.

        Args:
            outputs: (R,) or (R, K) logits of reference studies.
            studies: (B,) studies to answer for.

        Returns:
            (B,) mean value of the outputs, as if each were about the study; (B,) its standard error, negative where the
            value falls as the outputs rise.
        """
        background = np.asarray(outputs, dtype=np.float64)
        means, errors = np.empty(len(studies)), np.empty(len(studies))
        for category in np.unique(self.category[studies]):
            rows = np.flatnonzero(self.category[studies] == category)
            values = self(background, np.full(len(background), studies[rows[0]]))
            falls = self.kind == "binary" and category == 0
            means[rows] = values.mean()
            errors[rows] = (-1 if falls else 1) * values.std() / np.sqrt(max(len(values) - 1, 1))
        return means, errors
