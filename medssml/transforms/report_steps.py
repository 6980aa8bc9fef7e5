"""What MONAI lacks for text: sentences left out or put in another order, and a text as token ids."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform, RandomizableTransform

from medssml.config import Configured
from medssml.readers.sentences import sentences
from medssml.transforms.report import Vocabulary


class RandSentencesd(Configured, RandomizableTransform, MapTransform):
    """Leaves sentences out, never all, and puts the others of some reports in another order.

    Args:
        keys: names of the entries, texts.
        drop: share of the sentences that are left out.
        shuffle: share of the reports whose sentences are put in another order.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "report",
        drop: float = 0.1,
        shuffle: float = 0.1,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        for name, share in (("drop", drop), ("shuffle", shuffle)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, expected 0 to 1")
        self.drop, self.shuffle = float(drop), float(shuffle)

    def randomize(self, data: int) -> None:
        """Draws which of `data` sentences stay, and their order."""
        super().randomize(None)
        kept = self.R.random_sample(data) >= self.drop
        rows = [row for row in range(data) if kept[row]] or list(range(data))
        if self.R.random_sample() < self.shuffle:
            rows = [rows[place] for place in self.R.permutation(len(rows))]
        self._rows = rows

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the sentences that stay, one a line."""
        entries = dict(data)
        for key in self.key_iterator(entries):
            whole = sentences(entries[key])
            self.randomize(len(whole))
            entries[key] = "\n".join(whole[row] for row in self._rows)
        return entries


class Tokenized(Configured, MapTransform):
    """The last step of a report's road: {"input_ids": (L,) int64, "attention_mask": (L,) int64, all ones, "word": (L,) int64}.

    "word" says which word of the text a token is a piece of, from 1 on, 0 for a token that is of none.

    The vocabulary is learned from the training split alone, or comes from a local folder.

    Args:
        keys: names of the entries, texts.
        tokenizer: a local Hugging Face folder; None = a lower-case vocabulary that is learned.
        vocab_size: most tokens that are learned.
        max_length: most tokens of a report, [CLS] and [SEP] included.
        min_subjects: a word in the reports of fewer subjects is never learned as a whole: it may be a name.
        allow_missing_keys: a study without the entry stays as it is.
    """

    def __init__(
        self,
        keys: str | Sequence[str] = "report",
        tokenizer: str | Path | None = None,
        vocab_size: int = 4096,
        max_length: int = 192,
        min_subjects: int = 5,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.vocabulary = Vocabulary(tokenizer, vocab_size, max_length, min_subjects)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """`data` with the dict of tensors.

        Raises:
            ValueError: nothing was learned yet.
        """
        entries = dict(data)
        for key in self.key_iterator(entries):
            ids, words = (torch.tensor(part, dtype=torch.int64) for part in self.vocabulary.pieces(entries[key]))
            entries[key] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "word": words}
        return entries

    def learn(self, data: Iterable[Mapping[Hashable, Any]], subjects: Sequence[str] | None) -> list[str]:
        """Learns the vocabulary from the entries of training studies, unless there is one already."""
        key = self.keys[0]
        return self.vocabulary.learn((str(entries[key]) for entries in data), subjects)

    def save_tokenizer(self, folder: Path) -> Path:
        """Writes the vocabulary as a Hugging Face folder."""
        return self.vocabulary.save_tokenizer(folder)
