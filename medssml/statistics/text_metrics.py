"""How near a written text is to a reference: BLEU, ROUGE-L and CIDEr, of many texts at once, and F1 of what they state.

Words are runs of letters and digits in lower case. Of no text at all each is NaN; an empty one is as far off as can be.

References: [1] Papineni et al., BLEU, ACL 2002. [2] Lin, ROUGE, 2004. [3] Vedantam, Zitnick, Parikh, CIDEr, CVPR 2015.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

#: Order of the longest n-gram of BLEU and CIDEr, and the spread of CIDEr-D's penalty of length, in words.
ORDER, SPREAD = 4, 6.0


def words(text: str) -> list[str]:
    """The words of a text."""
    return re.findall(r"[a-z0-9]+", text.lower())


def bleu(written: Sequence[str], references: Sequence[str]) -> float:
    """exp(mean over n = 1 to 4 of log precision of n-grams) x brevity penalty, over the whole corpus, from 0 to 1.

    Raises:
        ValueError: as `_checked`.
    """
    if _checked(written, references) == 0:
        return math.nan
    right, total, length, wanted = [0] * ORDER, [0] * ORDER, 0, 0
    for one, other in zip(map(words, written), map(words, references), strict=True):
        length, wanted = length + len(one), wanted + len(other)
        for n in range(ORDER):
            mine, theirs = _grams(one, n + 1), _grams(other, n + 1)
            right[n] += sum((mine & theirs).values())
            total[n] += sum(mine.values())
    if min(right) == 0:
        return 0.0
    precision = sum(math.log(r / t) for r, t in zip(right, total, strict=True)) / ORDER
    return math.exp(min(0.0, 1 - wanted / length) + precision)


def rouge_l(written: Sequence[str], references: Sequence[str]) -> float:
    """Mean F1 of the longest common subsequence of words.

    Raises:
        ValueError: as `_checked`.
    """
    if _checked(written, references) == 0:
        return math.nan
    found = []
    for one, other in zip(map(words, written), map(words, references), strict=True):
        common = _longest_common(one, other)
        found.append(2 * common / (len(one) + len(other)) if common else 0.0)
    return sum(found) / len(found)


def cider(written: Sequence[str], references: Sequence[str]) -> float:
    """CIDEr-D: ten times the mean over n = 1 to 4 of the cosine of clipped tf-idf vectors of n-grams, from 0 to 10.

    Document frequencies are those of the references; a difference in length of d words costs a factor exp(-d^2 / 72).

    Raises:
        ValueError: as `_checked`.
    """
    count = _checked(written, references)
    if count == 0:
        return math.nan
    texts = [words(text) for text in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        frequency.update({gram for n in range(ORDER) for gram in _grams(text, n + 1)})
    total = 0.0
    for one, other in zip(map(words, written), texts, strict=True):
        penalty = math.exp(-((len(one) - len(other)) ** 2) / (2 * SPREAD**2))
        for n in range(ORDER):
            mine, theirs = (_weighted(_grams(text, n + 1), frequency, count) for text in (one, other))
            shared = sum(min(value, theirs[gram]) * theirs[gram] for gram, value in mine.items() if gram in theirs)
            size = math.sqrt(sum(v * v for v in mine.values()) * sum(v * v for v in theirs.values()))
            total += penalty * shared / size if size > 0 else 0.0
    return 10 * total / ORDER / count


def finding_f1(written: Sequence[Mapping[str, bool]], references: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """F1 of each finding that texts state, and over all of them: "micro", of all statements, and "macro", the mean of findings.

    Args:
        written, references: of each text, finding -> whether it is stated to be there; one that is left out is not stated.

    Returns:
        finding, "micro" or "macro" -> F1; NaN where no text states the finding.

    Raises:
        ValueError: as `_checked`.
    """
    _checked(written, references)
    names = sorted({name for one in (*written, *references) for name in one})
    table = {
        name: [(one.get(name, False), other.get(name, False)) for one, other in zip(written, references, strict=True)]
        for name in names
    }
    found = {name: _f1(pairs) for name, pairs in table.items()}
    known = [value for value in found.values() if not math.isnan(value)]
    micro = _f1([pair for pairs in table.values() for pair in pairs])
    return {**found, "micro": micro, "macro": sum(known) / len(known) if known else math.nan}


def _f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    both, either = sum(a and b for a, b in pairs), sum(int(a) + int(b) for a, b in pairs)
    return 2 * both / either if either else math.nan


def _checked(written: Sequence[object], references: Sequence[object]) -> int:
    """How many there are.

    Raises:
        ValueError: not as many texts as references.
    """
    if len(written) != len(references):
        raise ValueError(f"{len(written)} texts were written, with {len(references)} references; expected one for each")
    return len(written)


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _weighted(
    grams: Counter[tuple[str, ...]], frequency: Counter[tuple[str, ...]], texts: int
) -> dict[tuple[str, ...], float]:
    return {gram: count * math.log(texts / max(1, frequency[gram])) for gram, count in grams.items()}


def _longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]
