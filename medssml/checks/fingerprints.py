"""What a file looks like, in 256 numbers, of which the signs are compared: copies differ in few, whatever their bytes are.

A copy under another format, size, compression, brightness or sampling rate keeps most of its signs. Not found: a copy that
is cropped, turned or mirrored, and a recording that starts elsewhere.

image, CT  perceptual hash (Zauner 2010): the low frequencies of the cosine transform of a small gray version.
EEG        the change of log-energy in time, as audio fingerprints have it (Haitsma and Kalker, ISMIR 2002).
report     simhash (Charikar, STOC 2002) of the runs of three words.

Two chests are alike as two faces are. So the signs are compared twice: of the numbers, and of what is left of them when the
cohort's median is taken away; a copy is near in both.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features: TypeAlias = NDArray[np.float16]
Codes: TypeAlias = NDArray[np.uint64]

BITS = 256
#: Files from which the cohort's median means something; with fewer, no copies are looked for.
ENOUGH = 32
_EEG_STEP_S = 0.25
_EEG_LEAST_S = 8.0
_ROWS = 1024
#: The lowest frequencies that a hash keeps: 16 x 16 of an image, 8 x 8 x 4 of a volume.
_IMAGE, _VOLUME = (16, 16), (8, 8, 4)


def fingerprint(kind: str, read: Any) -> Features | None:
    """(256,) for what a reader returned; None where there is too little to tell it from another.

    Args:
        kind: ct, xray, eeg, report or table.
        read: a Volume, Radiograph, Recording, Report or Values.
    """
    if kind == "ct":
        return frequencies(np.clip(read.array, -1000, 1000), _VOLUME)
    if kind == "xray":
        return frequencies(read.array, _IMAGE)
    if kind == "eeg":
        return rhythm(read.signal, read.sfreq)
    if kind == "table":
        return None  # two healthy subjects have the same blood count
    return word_runs(read.text)


def frequencies(array: NDArray[Any], kept: Sequence[int]) -> Features | None:
    """The `kept` lowest frequencies of `array`, without its mean and of unit length; None for a constant."""
    from scipy.fft import dctn

    small = block_means(array, [4 * n for n in kept])
    spectrum = dctn(small, norm="ortho")[tuple(slice(n) for n in kept)].ravel()
    spectrum[0] = 0.0
    return _unit(spectrum) if float(np.abs(spectrum).max()) > 0 else None


def block_means(array: NDArray[Any], shape: Sequence[int]) -> NDArray[np.float32]:
    """Means of `array` over a grid of `shape` equal blocks; an axis shorter than that repeats its values."""
    out = np.asarray(array)
    for axis, count in enumerate(shape):
        edges = np.linspace(0, out.shape[axis], count + 1)
        first = np.minimum(edges[:-1].astype(int), out.shape[axis] - 1)
        widths = np.diff([*first, out.shape[axis]]).clip(1)
        if (np.diff(first) > 0).all():
            widths = widths.reshape([-1 if a == axis else 1 for a in range(out.ndim)])
            out = np.add.reduceat(out, first, axis=axis, dtype=np.float32) / widths
        else:
            out = np.take(out, first, axis=axis).astype(np.float32)
    return out


def rhythm(signal: NDArray[Any], sfreq: float) -> Features | None:
    """How much the log-energy rises from each quarter of a second to the next, over the first 64 s.

    Args:
        signal: (C, T) uV.
        sfreq: Hz.

    Returns:
        (256,); None for less than 8 s. A short recording repeats its numbers.
    """
    step = sfreq * _EEG_STEP_S
    count = min(int(signal.shape[1] / step), BITS + 1)
    if count * _EEG_STEP_S < _EEG_LEAST_S:
        return None
    edges = np.round(np.arange(count + 1) * step).astype(int)
    spreads = [signal[:, a:b].std(axis=1) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    energy = np.log(np.stack(spreads) + 1e-3).mean(axis=1)
    return _unit(np.resize(np.diff(energy), BITS))


def word_runs(text: str) -> Features | None:
    """The sum of random signs, one vector for each run of three words; None for fewer than five words."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < 5:
        return None
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    digests = b"".join(hashlib.blake2b(" ".join(run).encode(), digest_size=BITS // 8).digest() for run in runs)
    signs = np.unpackbits(np.frombuffer(digests, np.uint8).reshape(len(runs), -1), axis=1) * 2.0 - 1.0
    return _unit(np.array(list(runs.values())) @ signs)


def _unit(values: NDArray[Any]) -> Features:
    return (values / max(float(np.linalg.norm(values)), 1e-12)).astype(np.float16)


def sign_codes(features: NDArray[np.float16]) -> tuple[Codes, Codes]:
    """Two codes (n, 4) of (n, 256) features: their signs, and the signs of what is not common to all files."""
    median = np.median(features.astype(np.float32), axis=0)
    return _packed(features > 0), _packed(features > median)


def _packed(signs: NDArray[np.bool_]) -> Codes:
    return np.packbits(signs, axis=1).view(np.uint64)


def nearest_copies(
    codes: Sequence[Codes], limit: int, subjects: NDArray[np.int64], splits: NDArray[np.int64]
) -> Iterator[tuple[int, int, int]]:
    """(later, earlier, differing signs): for each file the nearest earlier one of another subject.

    One in another split comes before one in the same split: it does the greater harm.

    Args:
        codes: one or more (n, 4), each file near in all of them.
        limit: most signs in which a copy differs.
        subjects: (n,) whose file it is, as a number.
        splits: (n,) where it is, as a number.
    """
    count = len(subjects)
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        columns = np.arange(rows[-1] + 1)
        distance = np.maximum.reduce([_distances(part[rows], part[columns]) for part in codes])
        same_split = splits[rows, None] == splits[None, columns]
        allowed = (columns < rows[:, None]) & (subjects[rows, None] != subjects[None, columns]) & (distance <= limit)
        rank = np.where(allowed, distance + (BITS + 1) * same_split, 4 * BITS)
        best = rank.argmin(axis=1)
        for row, column in zip(rows, best, strict=True):
            if allowed[row - start, column]:
                yield int(row), int(column), int(distance[row - start, column])


def _distances(first: Codes, second: Codes) -> NDArray[np.uint16]:
    """(n, m) signs in which each code differs from each other one."""
    distance = np.zeros((len(first), len(second)), np.uint16)
    for word in range(first.shape[1]):
        distance += np.bitwise_count(first[:, word, None] ^ second[None, :, word])
    return distance
