"""Report: text to ids and back, a vocabulary of one's own, and a folder that Hugging Face reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medssml.config import describe
from medssml.readers.errors import ReadError
from medssml.transforms import RandSentencesd, ReportTransform
from medssml.transforms.report import text_of

TEXTS = [
    "FINDINGS: The lungs are clear. No pleural effusion. Heart size is normal.\nIMPRESSION: No acute disease.",
    "FINDINGS: Small left pleural effusion. XXXX is unchanged. Heart size is enlarged.\nIMPRESSION: Effusion.",
] * 3


@pytest.fixture
def fitted() -> ReportTransform:
    transform = ReportTransform()
    transform.vocabulary.fit(TEXTS)
    return transform


def test_ids_between_cls_and_sep_in_lower_case(fitted: ReportTransform) -> None:
    out = fitted(fitted.prepare("Heart size is NORMAL."))
    assert type(out["input_ids"]) is torch.Tensor and out["input_ids"].dtype == torch.int64
    vocabulary = fitted.vocabulary.tokenizer.get_vocab()
    assert out["input_ids"][0] == vocabulary["[CLS]"] and out["input_ids"][-1] == vocabulary["[SEP]"]
    assert out["attention_mask"].tolist() == [1] * len(out["input_ids"])
    assert fitted.vocabulary.decode(out["input_ids"]) == "heart size is normal."
    assert (fitted.vocabulary.pad_id, fitted.vocabulary.mask_id, fitted.vocabulary.special_ids) == (
        0,
        4,
        (0, 1, 2, 3, 4, 5),
    )
    assert fitted.vocabulary.vocab_size == len(vocabulary) < 300


def test_each_token_says_which_word_it_is_a_piece_of(fitted: ReportTransform) -> None:
    out = fitted(fitted.prepare("Heart oatmeal. Normal XXXX."))
    pieces = [fitted.vocabulary.tokenizer.id_to_token(int(i)) for i in out["input_ids"]]
    spelled: dict[int, str] = {}
    for piece, word in zip(pieces, out["word"].tolist(), strict=True):
        if word:
            spelled[word] = spelled.get(word, "") + piece.lstrip("\u2581")
    said = [text for text in spelled.values() if text and not text.startswith("[")]  # a mark leaves a space alone
    assert said == ["heart", "oatmeal", ".", "normal", "."]
    assert pieces.count("\u2581heart") == 1 and len(pieces) > 8, "oatmeal is in several pieces"
    assert [w for w, p in zip(out["word"].tolist(), pieces, strict=True) if p in ("[CLS]", "[SEP]")] == [0, 0]


def test_a_deidentification_mark_is_one_token(fitted: ReportTransform) -> None:
    ids = fitted(fitted.prepare("Heart XXXX normal."))["input_ids"]
    assert (
        fitted.vocabulary.tokenizer.token_to_id("[DEID]") in ids
        and fitted.vocabulary.tokenizer.token_to_id("[UNK]") not in ids
    )


def test_long_reports_are_cut_and_the_vocabulary_is_bounded() -> None:
    transform = ReportTransform(max_length=8, vocab_size=70)
    transform.vocabulary.fit(TEXTS)
    assert len(transform(transform.prepare(TEXTS[0]))["input_ids"]) == 8
    assert transform.vocabulary.vocab_size <= 70


def test_sections(fitted: ReportTransform) -> None:
    only = ReportTransform(sections=["impression"])
    assert text_of(only.prepare(TEXTS[0])) == "No acute disease."
    assert text_of(only.prepare("Nothing with a heading.")) == "Nothing with a heading."
    assert only.spec() != fitted.spec() == ReportTransform(vocab_size=100, max_length=9).spec()


def test_a_text_is_never_opened_as_a_file(tmp_path: Path, fitted: ReportTransform) -> None:
    (tmp_path / "secret.txt").write_text("secret words")
    assert "secret words" not in text_of(fitted.prepare(str(tmp_path / "secret.txt")))
    assert text_of(fitted.prepare(tmp_path / "secret.txt")) == "secret words"
    with pytest.raises(ReadError):
        fitted.prepare("  ")


def test_augmentation_is_keyed_and_keeps_sentences_whole(fitted: ReportTransform) -> None:
    busy = ReportTransform(drop_sentences=0.4, shuffle_sentences=0.5)
    busy.vocabulary.fit(TEXTS)
    prepared = busy.prepare(TEXTS[0])
    draws = [busy.vocabulary.decode(busy(prepared, seed)["input_ids"]) for seed in range(30)]
    assert draws[3] == busy.vocabulary.decode(busy(prepared, 3)["input_ids"])
    assert len(set(draws)) > 5 and all(draws)
    assert any("no pleural effusion" not in draw for draw in draws)
    assert not any("pleural effusion" in draw and "no pleural effusion" not in draw for draw in draws)


def test_a_wrapped_line_parts_no_negation_from_what_it_negates() -> None:
    text = (
        "FINDINGS: The heart is normal. There is no\npneumothorax. The lungs show no evidence of\nconsolidation. There has been "
        "no\nfracture of the ribs.\nIMPRESSION: No acute\nprocess.\nThere is no sign of:\n- edema\n- clips."
    )
    whole = (
        "no pneumothorax",
        "no evidence of consolidation",
        "no fracture",
        "no acute process",
        "no sign of: - edema - clips",
    )
    busy = RandSentencesd(drop=0.4, shuffle=0.5)
    draws = {busy.set_random_state(seed)({"report": text})["report"].lower() for seed in range(400)}
    assert len(draws) > 50
    for negated in whole:
        finding = negated.split()[-1]
        assert all(negated in draw for draw in draws if finding in draw)


def test_sections_lose_nothing_unsaid() -> None:
    from medssml.transforms.base import notes_of

    only = ReportTransform(sections=["findings", "impression"])
    prepared = only.prepare(
        "FINDINGS: See below.\nCOMPARISON: None.\nCHEST, 2 VIEWS: Nodule of 9 mm.\nIMPRESSION: Follow up."
    )
    assert "Nodule of 9 mm." in text_of(prepared) and "None." not in text_of(prepared)
    assert "'chest, 2 views' (15 letters)" in notes_of(prepared)[0]
    prepared = only.prepare("FINDINGS:\nLUNGS: Nodule of 9 mm.\nHEART: Normal.\nIMPRESSION(S): Same.")
    assert text_of(prepared) == "LUNGS: Nodule of 9 mm.\nHEART: Normal.\nSame." and notes_of(prepared) == []


def test_before_fit_it_says_what_to_do() -> None:
    transform = ReportTransform()
    with pytest.raises(ValueError, match="fit"):
        transform(transform.prepare("Text."))
    with pytest.raises(ValueError, match="no report"):
        transform.vocabulary.fit([" "])
    with pytest.raises(ValueError, match="no folder"):
        ReportTransform("/nowhere/at/all")


def test_how_many_reports_are_cut_is_said() -> None:
    texts = ["no finding"] * 8 + ["a small nodule in the left lobe of the lung"] * 5
    transform = ReportTransform(max_length=6)
    (said,) = transform.fit_training([transform.prepare(text) for text in texts])
    longest = len("a small nodule in the left lobe of the lung".split()) + 2
    assert said.startswith(f"5 of 13 training reports are cut at 6 tokens (median 4, longest {longest}); fix: ")
    assert len(transform(transform.prepare(texts[-1]))["input_ids"]) == 6
    roomy = ReportTransform(max_length=12)
    assert roomy.fit_training([roomy.prepare(text) for text in texts]) == []


def test_the_folder_gives_the_same_ids(tmp_path: Path, fitted: ReportTransform) -> None:
    fitted.vocabulary.save_tokenizer(tmp_path / "tokenizer")
    again = ReportTransform(tmp_path / "tokenizer")
    prepared = fitted.prepare(TEXTS[1])
    assert torch.equal(again(prepared)["input_ids"], fitted(prepared)["input_ids"])
    assert (
        again.vocabulary.pad_id,
        again.vocabulary.mask_id,
        again.vocabulary.special_ids,
        again.vocabulary.vocab_size,
    ) == (
        0,
        4,
        fitted.vocabulary.special_ids,
        fitted.vocabulary.vocab_size,
    )
    again.fit_training([again.prepare("entirely other words")])
    assert again.vocabulary.vocab_size == fitted.vocabulary.vocab_size
    assert describe(again)[-1]["init_args"]["tokenizer"] == str(tmp_path / "tokenizer")


def test_hugging_face_reads_the_folder(tmp_path: Path, fitted: ReportTransform) -> None:
    from transformers import PreTrainedTokenizerFast

    fitted.vocabulary.save_tokenizer(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert loaded.pad_token_id == 0 and loaded.mask_token == "[MASK]"
    assert (
        loaded("Heart size is normal.")["input_ids"]
        == fitted(fitted.prepare("Heart size is normal."))["input_ids"].tolist()
    )


def test_a_folder_with_other_special_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(special_tokens=["<s>", "<pad>", "<unk>", "<mask>"], show_progress=False)
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": "<pad>", "mask_token": {"content": "<mask>"}}')
    transform = ReportTransform(tmp_path)
    assert (transform.vocabulary.pad_id, transform.vocabulary.mask_id) == (1, 3)


def test_the_vocabulary_does_not_depend_on_the_order_or_the_run(tmp_path: Path) -> None:
    script = (
        "import sys; from medssml.transforms import ReportTransform; t = ReportTransform(vocab_size=120);"
        f"texts = {TEXTS!r}; v = t.vocabulary; v.fit(texts[::int(sys.argv[1])]);"
        "print(sorted(v.tokenizer.get_vocab().items()))"
    )
    outs = {
        subprocess.run([sys.executable, "-c", script, step], capture_output=True, text=True, check=True).stdout
        for step in ("1", "-1")
    }
    assert len(outs) == 1


def test_a_word_of_few_subjects_is_not_learned() -> None:
    """Twenty reports of two subjects say a name; a name of five would be learned, as any word is."""
    texts = ["Heart size is normal."] * 8 + ["Seen by Dr.Zwetschge-Kern: heart size is normal, Zwetschge."] * 20
    subjects = [f"p{i}" for i in range(8)] + ["x", "y"] * 10

    def pieces(least: int) -> set[str]:
        transform = ReportTransform(min_subjects=least)
        transform.fit_training([transform.prepare(text) for text in texts], subjects)
        assert (
            transform.vocabulary.decode(transform(transform.prepare("Zwetschge is seen."))["input_ids"])
            == "zwetschge is seen."
        )
        return {token.lstrip("\u2581") for token in transform.vocabulary.tokenizer.get_vocab()}

    assert {"zwetschge", "kern", "seen", "heart"} <= pieces(2)
    rare = pieces(3)
    assert {"heart", "size", "normal"} <= rare
    assert not {piece for piece in rare if len(piece) > 1 and piece in "zwetschge kern seen by dr"}


def test_what_all_subjects_say_is_learned_as_without_the_rule() -> None:
    plain, ruled = ReportTransform(min_subjects=1), ReportTransform(min_subjects=3)
    for transform in (plain, ruled):
        transform.vocabulary.fit(TEXTS)
    assert plain.vocabulary.tokenizer.to_str() == ruled.vocabulary.tokenizer.to_str()
