"""Classical baselines: hand-made features of each modality and a logistic regression.

What anyone would try first, so what a pretrained model has to beat: intensity and size of the dense parts of a CT, HOG of
a radiograph, band power of an EEG, TF-IDF of a report. They run on the same studies, splits and subsets of modalities as
the model, and nothing is chosen on the test split: the penalty is chosen by cross-validation over training subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.encoders.image_descriptors import ct_features, xray_features
from medssml.transforms.eeg import reference

Array = NDArray[np.float64]

#: EEG bands in Hz: delta, theta (low, high), alpha (low, high), beta (low, high), low gamma.
BANDS = ((1, 4), (4, 6), (6, 8), (8, 10), (10, 13), (13, 20), (20, 30), (30, 45))
#: 10-20 channels, in the order of the features; a recording without one of them has zeros there.
CHANNELS_10_20 = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4", "P8", "O1", "O2",
)  # fmt: skip
#: Penalties of the logistic regression that cross-validation chooses from.
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


def eeg_features(signal: NDArray[Any], sfreq: float, channels: Sequence[str], references: Sequence[str] = ()) -> Array:
    """Log power of eight bands at the nineteen 10-20 positions, after common average reference (4-s Hann windows).

    Args:
        signal: (C, T) in uV. sfreq: Hz. channels: names of the C channels; a bipolar one has no place here.
        references: (C,) what each was measured against; of several no average is taken.
    """
    mine = [i for i, name in enumerate(channels) if name in CHANNELS_10_20]
    if not mine:
        return np.zeros(len(CHANNELS_10_20) * len(BANDS))
    against = [references[i] for i in mine] if references else ()
    wave = reference(np.asarray(signal, dtype=np.float64)[mine], [channels[i] for i in mine], against)
    length = min(int(4 * sfreq), wave.shape[1])
    windows = wave[:, : wave.shape[1] // length * length].reshape(len(mine), -1, length) * np.hanning(length)
    power = np.abs(np.fft.rfft(windows)) ** 2
    frequency = np.fft.rfftfreq(length, 1 / sfreq)
    out = np.zeros((len(CHANNELS_10_20), len(BANDS)))
    for band, (low, high) in enumerate(BANDS):
        inside = (frequency >= low) & (frequency < high)
        values = np.log(power[..., inside].mean(-1) + 1e-9).mean(1) if inside.any() else np.zeros(len(mine))
        for value, i in zip(values, mine, strict=True):
            out[CHANNELS_10_20.index(channels[i]), band] = value
    return out.ravel()


class ClassicalBaseline:
    """Features of the modalities of one subset, standardised, and a logistic regression.

    Dense features of several modalities stand side by side; a report adds TF-IDF of its words and word pairs, whose
    vocabulary is that of the training rows.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, features: Mapping[str, Sequence[Any]], y: Array, subjects: Sequence[str]) -> ClassicalBaseline:
        """Chooses the penalty by cross-validation over subjects and fits.

        Args:
            features: modality -> n feature vectors, or n texts. y: (n,) of 0 and 1. subjects: (n,).
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

        self.transforms_ = {name: _fit_features(values) for name, values in features.items()}
        x = self._matrix(features)
        folds = min(5, len(set(subjects)), int(min((y == 0).sum(), (y == 1).sum())))
        best, chosen = -1.0, 0.1
        for penalty in PENALTIES if folds > 1 else ():
            splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=self.seed)
            model = LogisticRegression(C=penalty, max_iter=3000)
            score = cross_val_predict(model, x, y, groups=subjects, cv=splitter, method="decision_function")
            auroc = roc_auc_score(y, score)
            if auroc > best + 1e-3:
                best, chosen = auroc, penalty
        self.penalty_ = chosen
        self.model_ = LogisticRegression(C=chosen, max_iter=3000).fit(x, y)
        return self

    def predict(self, features: Mapping[str, Sequence[Any]]) -> Array:
        """(n,) probability of the positive class."""
        return np.asarray(self.model_.predict_proba(self._matrix(features))[:, 1])

    def _matrix(self, features: Mapping[str, Sequence[Any]]) -> Any:
        from scipy import sparse

        return sparse.hstack([sparse.csr_matrix(self.transforms_[m](values)) for m, values in features.items()]).tocsr()


def _fit_features(values: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """The map from raw features (texts, or vectors) to columns of the regression, learned on the training rows."""
    if isinstance(values[0], str):
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(values) > 20 else 1, sublinear_tf=True)
        words.fit(values)
        return lambda texts: words.transform(list(texts)) * 10.0  # unit rows beside standardised columns
    x = np.stack([np.asarray(v, dtype=np.float64) for v in values])
    mean, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    return lambda rows: (np.stack([np.asarray(v, dtype=np.float64) for v in rows]) - mean) / scale


def read_features(modality: str, source: Any) -> Any:
    """The features of one file, or the text of a report; None for a modality that has no classical features here.

    Args:
        modality: name of the column. source: a path, or the text of a report.

    Raises:
        medssml.readers.errors.ReadError: the file cannot be used.
    """
    from medssml.readers import modality_kind, read_ct, read_eeg, read_report, read_xray

    kind = modality_kind(modality)
    if kind == "ct":
        volume = read_ct(source)
        return ct_features(volume.array, [float(mm) for mm in volume.spacing])
    if kind == "xray":
        return xray_features(read_xray(source).array)
    if kind == "eeg":
        recording = read_eeg(source)
        return eeg_features(recording.signal, recording.sfreq, recording.channels, recording.references)
    return read_report(source).text if kind == "report" else None
