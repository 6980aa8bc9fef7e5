"""Predictor: files of any subset of modalities in, probabilities out; the answer of the model itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import medssml
from medssml.checkpoint import CheckpointError
from medssml.encoders import TextEncoder, ViT
from medssml.fusion import ConcatFusion
from medssml.model import MultimodalModel
from medssml.predictor import _of_row, load_transforms
from medssml.transforms import ReportTransform, XrayTransform

TEXT = "FINDINGS: The lungs are clear. IMPRESSION: No acute findings."


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    report = ReportTransform(vocab_size=64, max_length=32)
    report.vocabulary.fit([TEXT, "Large pleural effusion on the left.", "The heart is enlarged. No effusion."] * 3)
    transforms = {"xray": XrayTransform(32), "report": report}
    encoders = {"xray": ViT((32, 32), 16, 24, 1, 2), "report": TextEncoder(report.vocabulary.vocab_size, 24, 1, 2, 32)}
    tasks = {
        "finding": {"kind": "binary"},
        "grade": {"kind": "multiclass", "n_classes": 3},
        "age": {"kind": "regression"},
    }
    folder = tmp_path_factory.mktemp("run")
    MultimodalModel(encoders, ConcatFusion(("xray", "report"), 16), tasks).save(folder / "model", transforms)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "chest.png"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_predicts_any_subset(run, image):
    predictor = medssml.load(run)
    assert predictor.modalities == ("xray", "report") and predictor.tasks == ("finding", "grade", "age")
    for study in ({"xray": image}, {"report": TEXT}, {"xray": str(image), "report": TEXT}):
        answer = predictor.predict(study)
        assert 0.0 < answer["finding"] < 1.0
        assert sum(answer["grade"]) == pytest.approx(1.0, abs=1e-5) and len(answer["grade"]) == 3
        assert isinstance(answer["age"], float)
        assert list(predictor.predict(study, task="finding")) == ["finding"]


def test_a_list_gives_the_answers_of_its_studies(run, image):
    predictor = medssml.load(run)
    studies = [{"xray": image}, {"report": TEXT}, {"xray": image, "report": "No effusion."}]
    together = predictor.predict(studies)
    for study, answer in zip(studies, together, strict=True):
        assert predictor.predict(study)["finding"] == pytest.approx(answer["finding"], abs=1e-6)
    embedded = predictor.embed(studies)
    assert embedded.shape == (3, 16) and embedded.dtype == torch.float32
    assert torch.allclose(predictor.embed(studies[0]), embedded[:1], atol=1e-6)


def test_a_report_is_a_text_or_a_file(run, tmp_path):
    predictor = medssml.load(run)
    file = tmp_path / "my report.txt"
    file.write_text(TEXT)
    from_text = predictor.embed({"report": TEXT})
    assert torch.equal(predictor.embed({"report": file}), from_text)
    assert torch.equal(predictor.embed({"report": str(file)}), from_text)
    assert predictor.embed({"report": "See the file report.txt"}).shape == (1, 16)


@pytest.mark.parametrize("name", ["r", "r.md", "r.html", "r.rtf", "r 1.hl7", "r.no,ending"])
def test_a_text_that_is_the_name_of_a_file_is_the_file(run, tmp_path, monkeypatch, name):
    predictor = medssml.load(run)
    (tmp_path / name).write_text(TEXT)
    from_text = predictor.embed({"report": TEXT})
    monkeypatch.chdir(tmp_path)
    for source in (str(tmp_path / name), name, tmp_path / name):
        assert torch.equal(predictor.embed({"report": source}), from_text), source


@pytest.mark.parametrize(
    "gone",
    ["gone.rtf", "GONE.TXT", "reports/gone", "/data/gone", "/data/my reports/gone", "C:\\my reports\\gone", "./a b",
     "my reports/gone 1.html", "~/gone"],
)  # fmt: skip
def test_a_text_that_can_only_be_a_path_needs_its_file(run, gone):
    with pytest.raises(FileNotFoundError, match="report: no file .*fix"):
        medssml.load(run).predict({"report": gone})


@pytest.mark.parametrize(
    "text",
    ["No change since 12/03/2020.", "Clear", "See r.txt for more", "a/b\n", "<p>a/b</p>",
     "x" * 5000, "1. Nodule 3/4 cm", "Line\nwith /a/path.txt"],
)  # fmt: skip
def test_what_reads_as_a_text_is_one(run, text):
    assert medssml.load(run).embed({"report": text}).shape == (1, 16)


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float64("nan"), pd.NA, pd.NaT, "", "  \n"])
def test_a_value_that_stands_for_nothing_is_absent(run, image, nothing):
    predictor = medssml.load(run)
    alone = predictor.embed({"xray": image})
    assert torch.equal(predictor.embed({"xray": image, "report": nothing}), alone)
    with pytest.raises(ValueError, match="study 0 has nothing"):
        predictor.predict({"report": nothing})


def test_rows_of_a_table_are_studies(run, image):
    predictor = medssml.load(run)
    table = pd.DataFrame(
        {
            "study_id": ["a", "b", "c"],
            "xray": [str(image), None, str(image)],
            "report": [TEXT, pd.NA, float("nan")],
            "report_text": ["", "No effusion.", None],
            "label_finding": [1, 0, None],
        }
    )
    studies = [{"xray": image, "report": TEXT}, {"report": "No effusion."}, {"xray": image}]
    expected = predictor.embed(studies)
    assert torch.equal(predictor.embed(table), expected)
    assert torch.equal(predictor.embed([row for _, row in table.iterrows()]), expected)
    assert predictor.predict(table) == predictor.predict(studies)
    assert predictor.predict(table.iloc[1]) == predictor.predict(studies[1])


def test_the_values_of_a_table_stand_in_its_row():
    row = pd.Series({"table_age": 61, "table_crp": float("nan"), "table_sex": "f", "ct": None, "split": "test"})
    assert _of_row(row, ("ct", "table")) == {"table": '{"age": "61", "sex": "f"}'}


def test_a_value_of_another_kind_is_told(run):
    with pytest.raises(TypeError, match="xray is a int; fix"):
        medssml.load(run).predict({"xray": 5})


@pytest.mark.parametrize("inputs", ["Clear lungs.", ["Clear lungs."]])
def test_a_text_alone_is_no_study(run, inputs):
    with pytest.raises(TypeError, match="^a study is a str; fix: a dict of what it has"):
        medssml.load(run).predict(inputs)


def test_what_cannot_be_predicted_is_told(run, image, tmp_path):
    predictor = medssml.load(run)
    with pytest.raises(KeyError, match="unknown modality 'mri'"):
        predictor.predict({"mri": image})
    with pytest.raises(FileNotFoundError, match="xray: no file"):
        predictor.predict({"xray": tmp_path / "gone.png"})
    with pytest.raises(FileNotFoundError, match="report: no file"):
        predictor.predict({"report": "gone.txt"})
    with pytest.raises(ValueError, match="study 1 has nothing"):
        predictor.predict([{"xray": image}, {"report": ""}])
    with pytest.raises(KeyError, match="no task 'other'"):
        predictor.predict({"xray": image}, task="other")


def test_the_tokenizer_travels_with_the_model(run, tmp_path):
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["transforms"]["report"][-1]["init_args"]["tokenizer"] == "tokenizer"
    assert (run / "model" / "tokenizer" / "tokenizer.json").is_file()
    moved = tmp_path / "elsewhere"
    run_model = run / "model"
    moved.mkdir()
    for file in run_model.rglob("*"):
        if file.is_file():
            target = moved / file.relative_to(run_model)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert torch.equal(medssml.load(moved).embed({"report": TEXT}), medssml.load(run).embed({"report": TEXT}))


def test_a_model_without_transforms_says_so(run, tmp_path, image):
    MultimodalModel.load(run).save(tmp_path)
    with pytest.raises(CheckpointError, match="without a transform for xray"):
        medssml.load(tmp_path).predict({"xray": image})


@pytest.fixture(scope="module")
def with_parts(run, tmp_path_factory) -> Path:
    """The same model with a space and a decoder that pretraining kept."""
    from medssml.decoders import ReportDecoder
    from medssml.spaces import SharedSpace

    loaded = medssml.load(run)
    torch.manual_seed(3)
    vocabulary = loaded.model.encoders["report"].vocab_size
    space = SharedSpace(16, 8, ["xray", "report"], batch_norm=False)
    loaded.model.keep(
        {"space": space, "decoder": ReportDecoder(vocabulary, 16, dim=16, depth=1, heads=2, max_length=8)}
    )
    folder = tmp_path_factory.mktemp("kept")
    loaded.model.save(folder / "model", loaded.transforms)
    return folder


def test_retrieval_is_by_the_cosine_in_the_space_that_was_kept(with_parts, image):
    predictor = medssml.load(with_parts)
    reports = [{"report": text} for text in (TEXT, "Large effusion.", "The heart is enlarged.")]
    found = predictor.retrieve({"xray": image}, reports, top=2)
    batch = predictor.batch([{"xray": image}, *reports])
    space = predictor.model.kept["space"]
    with torch.inference_mode():
        encoded = predictor.model.encode(batch)
        cosines = space("report", encoded["report"].pooled) @ space("xray", encoded["xray"].pooled)[0]
    assert [row for row, _ in found] == cosines.argsort(descending=True)[:2].tolist()
    assert found[0][1] == pytest.approx(float(cosines.max()), abs=1e-5)


def test_zero_shot_is_the_softmax_over_the_prompts(with_parts, image):
    predictor = medssml.load(with_parts)
    prompts = {"effusion": ["Large effusion.", "Pleural effusion on the left."], "none": "No effusion."}
    answer = predictor.zero_shot({"xray": image}, prompts, temperature=0.5)
    assert sum(answer.values()) == pytest.approx(1.0) and list(answer) == ["effusion", "none"]
    mean = predictor.place([{"report": text} for text in prompts["effusion"]]).mean(0)
    query = predictor.place({"xray": image})[0]
    logits = torch.stack([query @ mean / mean.norm(), query @ predictor.place({"report": "No effusion."})[0]]) / 0.5
    assert answer["effusion"] == pytest.approx(float(logits.softmax(0)[0]), abs=1e-5)
    assert len(predictor.zero_shot([{"xray": image}, {"report": TEXT}], prompts)) == 2
    with pytest.raises(ValueError, match="two classes or more"):
        predictor.zero_shot({"xray": image}, {"one": "text"})
    with pytest.raises(TypeError, match="^prompts is a list; fix: a dict of class and sentence"):
        predictor.zero_shot({"xray": image}, ["one", "two"])


def test_a_report_is_written_from_the_rest_of_the_study(with_parts, image):
    predictor = medssml.load(with_parts)
    alone, beside = (predictor.generate(study) for study in ({"xray": image}, {"xray": image, "report": TEXT}))
    assert isinstance(alone, str) and alone == beside
    assert len(predictor.generate([{"xray": image}, {"xray": image}])) == 2
    with pytest.raises(ValueError, match="^study 1 has nothing but a report, which is not shown; fix"):
        predictor.generate([{"xray": image}, {"report": TEXT}])


def test_a_model_that_kept_nothing_says_how_to_get_one_that_did(run, image):
    predictor = medssml.load(run)
    with pytest.raises(CheckpointError, match="fix: pretrain with CrossModalContrast"):
        predictor.retrieve({"xray": image}, [{"report": TEXT}])
    with pytest.raises(CheckpointError, match="fix: pretrain with Captioning"):
        predictor.generate({"xray": image})


def test_a_model_folder_of_the_first_form_still_loads(run, tmp_path, image):
    """Before roads were lists of steps a folder named one class per modality; its answers are those of its steps."""
    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["transforms"] = {
        "xray": {"class_path": "XrayTransform", "init_args": {"size": 32}},
        "report": {
            "class_path": "ReportTransform",
            "init_args": {"vocab_size": 64, "max_length": 32, "tokenizer": "tokenizer"},
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    study = {"xray": image, "report": TEXT}
    assert torch.equal(medssml.load(folder).embed(study), medssml.load(run).embed(study))
    again = MultimodalModel.load(folder).save(tmp_path / "again", load_transforms(folder))
    assert torch.equal(medssml.load(again).embed(study), medssml.load(run).embed(study))


def test_values_of_a_table_are_no_path():
    from medssml.predictor import _names_file

    assert not _names_file('{"crea_mg/dl":1.2}') and not _names_file("MSH|^~\\&|a/b")
    assert _names_file("tables/a")


def test_arrays_tensors_and_files_give_the_same_answer(run, image):
    predictor = medssml.load(run)
    pixels = np.asarray(Image.open(image))
    expected = predictor.embed({"xray": image})
    for form in (pixels, torch.tensor(pixels), pixels[None], Image.open(image), pixels / 255.0):
        assert torch.allclose(predictor.embed({"xray": form, "report": np.nan}), expected, atol=1e-5)
    assert torch.allclose(predictor.embed({"xray": pixels, "report": torch.tensor(float("nan"))}), expected, atol=1e-5)
    table = pd.DataFrame({"xray": [pixels, None], "report": [None, TEXT]})
    assert predictor.predict(table) == predictor.predict([{"xray": pixels}, {"report": TEXT}])
    with pytest.raises(ValueError, match=r"^study 1: xray is an array \(3, 8, 8\), expected \(H, W\); fix"):
        predictor.predict([{"report": TEXT}, {"xray": np.ones((3, 8, 8))}])
    with pytest.raises(TypeError, match="^study 0: report is a ndarray; fix: the path of a file, or the text"):
        predictor.predict({"report": np.ones(3)})


def test_values_of_a_table_are_a_dict_a_series_or_numbers_in_the_models_order():
    from medssml.transforms import LoadTabled
    from medssml.transforms.road import Road

    road = Road("table", [LoadTabled({"crp": "mg/L", "age": ""})])

    def values(given):
        return road.prepare(road.held("table", given))["values"].tolist()

    assert values({"age": 61, "crp": None, "other": 3}) == pytest.approx([np.nan, 61], nan_ok=True)
    assert values(pd.Series({"crp": 5.5, "age": np.nan})) == pytest.approx([5.5, np.nan], nan_ok=True)
    assert values(np.array([5.5, 61])) == values(torch.tensor([5.5, 61.0])) == [5.5, 61.0]
    with pytest.raises(ValueError, match=r"an array \(3,\); fix: \(F,\) numbers.*: crp \(mg/L\), age"):
        values(np.ones(3))
    with pytest.raises(TypeError, match="table is a int; fix"):
        values(5)


def test_the_predictor_says_what_it_is(run, with_parts):
    said = repr(medssml.load(run))
    count = sum(p.numel() for p in medssml.load(run).model.parameters())
    assert said == (
        f"Predictor(xray + report -> finding (binary), grade (multiclass: 0, 1, 2), age (regression); D = 16, "
        f"{count:,} parameters, on cpu)"
    )
    assert "keeps space, decoder" in repr(medssml.load(with_parts))
