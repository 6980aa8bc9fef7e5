"""Radiology report: token ids of a vocabulary that was learned from the training split alone, or of a local folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssml.files import write_text
from medssml.readers.report import parse_report, read_report
from medssml.readers.sections import chosen_sections
from medssml.transforms.base import NOTES, Preparation, Prepared, Source, at_least, notes_array

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEID]")
_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class ReportText(Preparation):
    """The text of a report, or of some of its sections.

    Args:
        sections: keep only these, in this order, such as ["findings", "impression"], and text under headings
            that are none of the five, where the report has any of them; None = the whole text.
    """

    libraries = ("numpy",)
    takes_text = True

    def __init__(self, sections: Sequence[str] | None = None) -> None:
        self.sections = None if sections is None else tuple(sections)

    def settings(self) -> dict[str, Any]:
        # The text is stored, not the ids: a new vocabulary does not prepare the reports again.
        return {"sections": self.sections}

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        """{"text": (L,) uint8, UTF-8, "notes"}. A `Path` is a file, a string is the text itself and never opened.

        Raises:
            ReadError: no text.
        """
        report = read_report(source) if isinstance(source, Path) else parse_report(str(source))
        text, notes = (report.text, []) if self.sections is None else chosen_sections(report.text, self.sections)
        stored = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        return {"text": stored, NOTES: notes_array([*report.notes, *notes])}


class Vocabulary:
    """Text <-> token ids, between [CLS] and [SEP], cut at `max_length`.

    Args:
        tokenizer: a local Hugging Face folder; None = a lower-case vocabulary that `fit` learns.
        vocab_size: most tokens that `fit` learns.
        max_length: most tokens of a report, [CLS] and [SEP] included.
        min_subjects: a word in the reports of fewer subjects is never learned as a whole: it may be a name.
    """

    def __init__(
        self,
        tokenizer: str | Path | None = None,
        vocab_size: int = 4096,
        max_length: int = 192,
        min_subjects: int = 5,
    ) -> None:
        at_least("vocab_size", vocab_size, 64)
        at_least("max_length", max_length, 4)
        at_least("min_subjects", min_subjects, 1)
        self.limit, self.max_length, self.min_subjects = int(vocab_size), int(max_length), int(min_subjects)
        self._tokenizer: Tokenizer | None = None
        self._names = dict(_NAMES)
        if tokenizer is not None:
            self._tokenizer, self._names = load_tokenizer(Path(tokenizer))
            self._limit_length()

    def encode(self, text: str) -> list[int]:
        """(L,) ids of a text.

        Raises:
            ValueError: nothing was learned yet.
        """
        return list(self.tokenizer.encode(text).ids)

    def pieces(self, text: str) -> tuple[list[int], list[int]]:
        """(L,) ids of a text, and (L,) which word of it each is a piece of, from 1 on, 0 for a token that is of none.

        Raises:
            ValueError: nothing was learned yet.
        """
        found = self.tokenizer.encode(text)
        return list(found.ids), [0 if word is None else word + 1 for word in found.word_ids]

    def fit(self, texts: Iterable[str], subjects: Sequence[str] | None = None) -> None:
        """Learns the vocabulary from `texts`, reports of the training split and no others.

        Args:
            texts: n reports.
            subjects: (n,) whose each of them is; None = every report is of another subject.

        Raises:
            ValueError: no text.
        """
        self._tokenizer = train_tokenizer(texts, self.limit, subjects, self.min_subjects)
        self._names = dict(_NAMES)
        self._limit_length()

    def learn(self, texts: Iterable[str], subjects: Sequence[str] | None = None) -> list[str]:
        """As `fit`, unless there is a vocabulary already; says how many reports are cut at `max_length`."""
        if self._tokenizer is not None:
            return []
        texts = list(texts)
        self.fit(texts, subjects)
        return self._said_of_cut(texts)

    def _said_of_cut(self, texts: list[str]) -> list[str]:
        self.tokenizer.no_truncation()
        lengths = np.array([len(encoding.ids) for encoding in self.tokenizer.encode_batch(texts)])
        self._limit_length()
        cut = int((lengths > self.max_length).sum())
        if not cut:
            return []
        return [
            f"{cut:,} of {len(texts):,} training reports are cut at {self.max_length} tokens (median "
            f"{int(np.median(lengths))}, longest {lengths.max()}); fix: a larger max_length of the transform and of the encoder"
        ]

    def _limit_length(self) -> None:
        self.tokenizer.enable_truncation(self.max_length)
        self.tokenizer.no_padding()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the `tokenizers` library.

        Raises:
            ValueError: nothing was learned yet.
        """
        if self._tokenizer is None:
            raise ValueError("the report vocabulary is not learned yet; call fit(texts) or give tokenizer=FOLDER")
        return self._tokenizer

    @property
    def fitted(self) -> bool:
        """Whether there is a vocabulary."""
        return self._tokenizer is not None

    @property
    def vocab_size(self) -> int:
        """Number of tokens: what an embedding table needs."""
        return self.tokenizer.get_vocab_size()

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return self._id("pad_token")

    @property
    def mask_id(self) -> int:
        """Id of the mask token."""
        return self._id("mask_token")

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are no words: never masked, never drawn as a random word."""
        known = [self.tokenizer.token_to_id(token) for token in (*self._names.values(), "[DEID]")]
        return tuple(sorted({i for i in known if i is not None}))

    def _id(self, name: str) -> int:
        found = self.tokenizer.token_to_id(self._names[name]) if name in self._names else None
        if found is None:
            raise ValueError(f"this tokenizer has no {name}; use one trained for masked language modelling")
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The words of `ids`, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids])

    def save_tokenizer(self, folder: str | Path) -> Path:
        """Writes a Hugging Face folder, which `AutoTokenizer` and `Vocabulary(folder)` read."""
        folder = Path(folder)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_length, **self._names}
        write_text(folder / "tokenizer.json", self.tokenizer.to_str(pretty=False))
        write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=1))
        return folder


def text_of(prepared: Prepared) -> str:
    """The text that `ReportText.prepare` stored."""
    return bytes(prepared["text"]).decode("utf-8")


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, subjects: Sequence[str] | None = None, min_subjects: int = 1
) -> Tokenizer:
    """A lower-case byte-pair vocabulary (Sennrich et al. 2016); [PAD] is 0, a word begins with "\u2581".

    Learned from the words that at least `min_subjects` subjects share; any other is spelled in pieces of those.

    Not WordPiece: the library's trainer numbers its "##" pieces in an order that changes from run to run, and then two
    ranks, or a run and its resumption, would read one report differently.

    Raises:
        ValueError: no text.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked from this process
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    texts = list(texts)
    written = (
        [(text, str(i)) for i, text in enumerate(texts)] if subjects is None else zip(texts, subjects, strict=True)
    )
    corpus = sorted(pair for pair in written if pair[0].strip())
    if not corpus:
        raise ValueError("no report to learn a vocabulary from; the training split has no text")
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    words = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    # Every letter of every report: a rare word is spelled, not lost.
    letters = {letter for text, _ in corpus for letter in tokenizer.normalizer.normalize_str(text) if letter.strip()}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=sorted(letters),
    )
    tokenizer.train_from_iterator(shared_words(tokenizer, corpus, min_subjects), trainer=trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def shared_words(tokenizer: Tokenizer, corpus: Sequence[tuple[str, str]], min_subjects: int) -> list[str]:
    """The texts of (text, subject) pairs, lower case, without the words that fewer than `min_subjects` subjects have."""
    normal = [(tokenizer.normalizer.normalize_str(text), subject) for text, subject in corpus]
    pieces = [tokenizer.pre_tokenizer.pre_tokenize_str(text) for text, _ in normal]
    having: dict[str, set[str]] = {}
    for (_, subject), found in zip(normal, pieces, strict=True):
        for piece, _ in found:
            having.setdefault(piece.lstrip("\u2581"), set()).add(subject)
    shared = {piece for piece, subjects in having.items() if len(subjects) >= min_subjects}
    texts = []
    for (text, _), found in zip(normal, pieces, strict=True):
        for piece, (start, end) in reversed(found):
            if piece.lstrip("\u2581") not in shared:
                text = text[:start] + text[end:]
        texts.append(text)
    return texts


def load_tokenizer(folder: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer in a local Hugging Face folder, and the names of its special tokens. Nothing is downloaded.

    Raises:
        ValueError: no tokenizer there.
    """
    from tokenizers import Tokenizer

    if not folder.is_dir():
        raise ValueError(f"tokenizer {str(folder)!r} is no folder; give a local Hugging Face folder")
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        known = dict(_NAMES)
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                known |= _special_tokens(json.loads((folder / name).read_text(encoding="utf-8")))
        return tokenizer, known
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer in {str(folder)!r}: {error}") from error
    return loaded.backend_tokenizer, {name: getattr(loaded, name) for name in _NAMES if getattr(loaded, name, None)}


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    found = {name: settings[name] for name in _NAMES if settings.get(name)}
    return {name: token["content"] if isinstance(token, dict) else str(token) for name, token in found.items()}
