"""MultimodalModel: composition, interventions in fusion, and model folders that come back bit for bit, without pickle."""

import json
import sys
import types
from dataclasses import make_dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import medssml
from medssml.batch import Batch, Encoded
from medssml.checkpoint import CheckpointError
from medssml.config import ConfigError, build, describe, load_config
from medssml.encoders import CTDescriptor, TextEncoder, ViT, WordDescriptor
from medssml.encoders.base import as_encoded
from medssml.fusion import ConcatFusion, MaskedAttention
from medssml.model import MultimodalModel, Task

NAMES = ("xray", "report")
PRESENT = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]]).bool()
TASKS = {"finding": Task(), "grade": Task("multiclass", 3, evidence=True), "age": Task("regression")}


def model(tasks=TASKS) -> MultimodalModel:
    torch.manual_seed(0)
    encoders = {"report": TextEncoder(40, 16, 1, 2, 12), "xray": ViT((16, 16), 8, 24, 1, 2)}
    return MultimodalModel(encoders, MaskedAttention(NAMES, 20, 1, 2), tasks).eval()


def batch(present: torch.Tensor = PRESENT, names: tuple[str, ...] = NAMES) -> Batch:
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "xray": torch.rand(2, 1, 16, 16, generator=draw),
        "report": {
            "input_ids": torch.randint(5, 40, (2, 6), generator=draw),
            "attention_mask": torch.ones(2, 6, dtype=torch.int64),
        },
    }
    ids = ("a", "b", "c", "d")
    return Batch({m: inputs[m] for m in names if m in inputs}, present, names, ids, torch.arange(4), torch.arange(4))


def test_shapes_of_the_answers():
    net = model()
    out = net(batch())
    assert {name: tuple(value.shape) for name, value in out.items()} == {"finding": (4,), "grade": (4, 3), "age": (4,)}
    assert net.modalities == NAMES and net.dim == 20
    encoded = net.encode(batch())
    assert encoded["xray"].tokens.shape == (2, 4, 20) and encoded["report"].pooled.shape == (2, 20)
    assert net.encode_raw(batch())["xray"].pooled.shape == (2, 24)


def test_nobody_has_it_then_no_encoder_runs():
    net = model()
    net.encoders["xray"].forward = None  # type: ignore[assignment]
    assert list(net.encode(batch().without("xray"))) == ["report"]
    empty = batch().without("xray")
    empty.inputs["xray"] = torch.zeros(0, 1, 16, 16)
    assert list(net.encode(empty)) == ["report"]


def test_hiding_in_fusion_is_what_an_encoder_never_saw():
    net = model()
    hidden = net.fuse(net.encode(batch()), PRESENT, within=batch().without("xray").present)
    for task, logits in net(batch().without("xray")).items():
        assert torch.allclose(net.predict_from(hidden)[task], logits, atol=1e-6)


def test_columns_follow_the_model_whatever_the_batch_has():
    """A manifest with its columns in another order, one that the model does not know, and one it lacks."""
    net = model()
    expected = net(batch())
    turned = net(batch(PRESENT.flip(1), ("report", "xray")))
    wider = net(batch(torch.cat([torch.ones(4, 1).bool(), PRESENT], 1), ("eeg", *NAMES)))
    for task, logits in expected.items():
        assert torch.equal(turned[task], logits)
        assert torch.equal(wider[task], logits)
    narrow = net.align(batch(PRESENT[:, 1:], ("report",)))
    assert narrow.modalities == NAMES and not narrow.present[:, 0].any()
    assert torch.allclose(net(narrow)["finding"], net(batch().without("xray"))["finding"], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 24), (2, 5, 24)])
def test_any_module_with_a_width_is_an_encoder(shape):
    class Own(nn.Module):
        dim = 24

        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.randn(*shape))

        def forward(self, inputs):
            return self.values

    net = MultimodalModel(
        {"xray": Own(), "report": TextEncoder(40, 16, 1, 2, 12)}, ConcatFusion(NAMES, 8), {"t": Task()}
    )
    encoded = net.encode_raw(batch())["xray"]
    assert encoded.tokens.shape == (2, 1 if len(shape) == 2 else 5, 24)
    assert encoded.mask.all() and encoded.pooled.shape == (2, 24)
    assert torch.isfinite(net(batch())["t"]).all()


def test_an_encoder_returns_one_of_three_things():
    whole = Encoded(torch.zeros(1, 1, 2), torch.ones(1, 1).bool(), torch.zeros(1, 2))
    assert as_encoded(whole) is whole
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\)"):
        as_encoded(torch.zeros(2, 3, 4, 5))


def test_parts_that_do_not_fit_are_refused():
    text = TextEncoder(40, 16, 1, 2, 12)
    with pytest.raises(ValueError, match="make them equal"):
        MultimodalModel({"report": text}, ConcatFusion(NAMES, 8))
    with pytest.raises(ValueError, match="no `dim`"):
        MultimodalModel({"report": text, "xray": nn.Linear(2, 2)}, ConcatFusion(NAMES, 8))


def described() -> MultimodalModel:
    """`model`, with the words of the report beside its encoder, fitted to forty reports."""
    torch.manual_seed(0)
    encoders = {"report": TextEncoder(40, 16, 1, 2, 12), "xray": ViT((16, 16), 8, 24, 1, 2)}
    words = {"report": WordDescriptor(40, 5, pairs=8, min_subjects=1)}
    net = MultimodalModel(encoders, MaskedAttention(NAMES, 20, 1, 2), TASKS, words).eval()
    ids = torch.randint(6, 40, (40, 6), generator=torch.Generator().manual_seed(1))
    reports = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    columns = torch.ones(40, 1).bool()
    net.fit_descriptors(
        [Batch({"report": reports}, columns, ("report",), ("s",) * 40, torch.arange(40), torch.arange(40))]
    )
    return net


def test_what_is_measured_stands_before_what_the_encoder_gives_and_tokens_stay():
    net, plain = described(), model()
    plain.encoders.load_state_dict(net.encoders.state_dict())
    raw, without = net.encode_raw(batch()), plain.encode_raw(batch())
    measured = net.descriptors["report"](batch().inputs["report"])
    assert measured.abs().min() > 0
    torch.testing.assert_close(raw["report"].pooled, torch.cat([measured, without["report"].pooled], 1))
    assert torch.equal(raw["report"].tokens, without["report"].tokens)
    assert torch.equal(raw["xray"].pooled, without["xray"].pooled)
    # Of tokens the projection sees what a study of mean measures would have.
    encoded, weight = net.projected(raw)["report"], net.project["report"].weight
    torch.testing.assert_close(encoded.tokens, raw["report"].tokens @ weight[:, 5:].T + net.project["report"].bias)
    torch.testing.assert_close(encoded.pooled, raw["report"].pooled @ weight.T + net.project["report"].bias)
    net.train().encode(batch())
    torch.testing.assert_close(net.standardise["report"](raw["report"].pooled)[:, :5], measured)
    assert not torch.allclose(net.standardise["report"](raw["report"].pooled)[:, 5:], without["report"].pooled)
    net.exchange_encoder("report", TextEncoder(40, 16, 1, 2, 12))
    assert net.standardise["report"].given == 5
    net = described()
    keep = {"xray": torch.tensor([[0, 1], [2, 3]])}
    assert torch.equal(net.encode_raw(batch(), keep)["report"].pooled, raw["report"].pooled)


def test_a_model_folder_brings_what_is_measured_and_what_it_was_fitted_to(tmp_path):
    net = described()
    loaded = MultimodalModel.load(net.save(tmp_path))
    assert loaded.descriptors["report"].fitted
    for task, logits in net(batch()).items():
        assert torch.equal(loaded(batch())[task], logits)
    before = loaded.descriptors["report"].directions.clone()
    loaded.fit_descriptors([batch()])
    assert torch.equal(loaded.descriptors["report"].directions, before)


def test_descriptors_go_with_their_modality_and_stay_with_another_encoder():
    net = described()
    arguments = describe(net)["init_args"]
    assert not MultimodalModel.restricted_to(arguments, ["xray"])["descriptors"]
    assert list(MultimodalModel.restricted_to(arguments, ["report"])["descriptors"]) == ["report"]
    net.exchange_encoder("report", TextEncoder(40, 8, 1, 2, 12))
    assert (
        net.encode_raw(batch())["report"].pooled.shape == (2, 5 + 8) and torch.isfinite(net(batch())["finding"]).all()
    )
    with pytest.raises(ValueError, match="descriptors of ct, which have no encoder"):
        MultimodalModel(
            {"report": TextEncoder(40, 16, 1, 2, 12)}, ConcatFusion(("report",), 8), descriptors={"ct": CTDescriptor()}
        )


def test_tasks_can_be_added_once():
    net = model({})
    assert net(batch()) == {}
    net.add_task("finding", {"kind": "binary"})
    weight = net.heads["finding"].linear.weight
    net.add_task("finding", Task())
    assert net.heads["finding"].linear.weight is weight
    with pytest.raises(ValueError, match="finding"):
        net.add_task("finding", Task("regression"))


def test_zero_touch_reaches_every_parameter_and_changes_nothing():
    net = model()
    loss = net(batch().without("xray"))["finding"].sum()
    touched = net.zero_touch(loss)
    assert torch.equal(touched, loss)
    touched.backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(p.grad.abs().sum() == 0 for p in net.encoders["xray"].parameters())


def test_runs_in_bf16():
    net = model()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(batch())
    for task, logits in net(batch()).items():
        assert torch.allclose(out[task].to(logits.dtype), logits, atol=0.05)


# ---- model folders


def test_a_model_comes_back_bit_for_bit(tmp_path):
    net = model()
    assert net.save(tmp_path / "model", card={"Data": "1,000 simulated studies."}) == tmp_path / "model"
    again = MultimodalModel.load(tmp_path)
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert again.tasks == net.tasks and not again.training
    assert all(torch.equal(again.state_dict()[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(again(batch())[task], logits) for task, logits in net(batch()).items())
    assert "1,000 simulated studies." in (tmp_path / "model" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()


def test_a_second_save_replaces_the_first(tmp_path):
    net = model()
    net.save(tmp_path)
    with torch.no_grad():
        net.fusion.fusion_token += 1.0
    net.save(tmp_path)
    assert torch.equal(MultimodalModel.load(tmp_path).fusion.fusion_token, net.fusion.fusion_token)


def test_a_class_of_the_users_own_comes_back_with_its_plugin(tmp_path):
    class Plain(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.dim = dim
            self.linear = nn.Linear(256, dim)

        def forward(self, inputs):
            return self.linear(inputs.flatten(1))

    from medssml.config import build

    Plain.__module__ = "own_encoders"
    sys.modules["own_encoders"] = types.ModuleType("own_encoders")
    sys.modules["own_encoders"].Plain = Plain  # type: ignore[attr-defined]
    try:
        own = build({"class_path": "own_encoders.Plain", "init_args": {"dim": 6}}, plugins=["own_encoders"])
        net = MultimodalModel({"xray": own, "report": TextEncoder(40, 16, 1, 2, 12)}, ConcatFusion(NAMES, 8), TASKS)
        net.eval().save(tmp_path)
        with pytest.raises(CheckpointError, match="--plugin own_encoders"):
            MultimodalModel.load(tmp_path)
        again = MultimodalModel.load(tmp_path, plugins=["own_encoders"])
        assert torch.equal(again(batch())["finding"], net(batch())["finding"])
    finally:
        del sys.modules["own_encoders"]


def edit(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_checkpoints_that_are_refused(tmp_path):
    folder = model().save(tmp_path / "run" / "model")
    weights = load_file(folder / "model.safetensors")

    def refused(says: str, path=tmp_path / "run") -> None:
        with pytest.raises(CheckpointError, match=says):
            MultimodalModel.load(path)

    refused("no folder", tmp_path / "nowhere")
    refused("no model in", tmp_path)

    save_file({**weights, "extra": torch.zeros(1)}, folder / "model.safetensors")
    refused("its SHA-256 is not that in config.json")
    edit(folder, weights_sha256=None)  # as a version wrote it that took none
    refused(r"1 unexpected \(extra\)")
    name = "fusion.fusion_token"
    save_file({key: value for key, value in weights.items() if key != name}, folder / "model.safetensors")
    refused(rf"1 missing \({name}\)")
    save_file({**weights, name: torch.zeros(1, 1, 3)}, folder / "model.safetensors")
    refused(r"another shape \(fusion.fusion_token \(1, 1, 3\) for \(1, 1, 20\)\)")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:200])
    refused("damaged")

    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "model.pt")
    refused("model.pt is a pickle")
    refused("is a pickle file", folder / "model.pt")

    edit(folder, format=9)
    refused("format 9")
    (folder / "config.json").write_text("{")
    refused("cannot be read")
    (folder / "config.json").write_text("{}")
    refused("no entry 'model'")


def test_a_config_cannot_build_what_it_should_not(tmp_path):
    folder = model().save(tmp_path)
    edit(folder, model={"class_path": "os.system", "init_args": {"command": "false"}})
    with pytest.raises(CheckpointError, match="--plugin os"):
        MultimodalModel.load(folder)
    edit(folder, model={"class_path": "ViT", "init_args": {}})
    with pytest.raises(CheckpointError, match="no MultimodalModel"):
        MultimodalModel.load(folder)


def test_a_fusion_that_names_no_modalities_joins_those_of_the_encoders(tmp_path):
    encoder = {
        "class_path": "ViT",
        "init_args": {"input_size": [16, 16], "patch_size": 8, "dim": 8, "depth": 1, "heads": 2},
    }
    fusion = {"class_path": "ConcatFusion", "init_args": {"dim": 8}}
    node = {
        "class_path": "MultimodalModel",
        "init_args": {"encoders": {"xray": encoder, "ct": encoder}, "fusion": fusion},
    }
    for path in ("ConcatFusion", "medssml.fusion.ConcatFusion"):
        fusion["class_path"] = path
        built = build(node)
        assert built.modalities == ("xray", "ct")
    assert describe(built)["init_args"]["fusion"]["init_args"]["modalities"] == ["xray", "ct"]

    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"model": node}))
    schema = make_dataclass("Schema", [("model", MultimodalModel)])
    read = load_config(file, schema).model["init_args"]["fusion"]["init_args"]
    assert read["modalities"] == ["xray", "ct"] and "modalities" not in fusion["init_args"]
    stated = load_config(file, schema, ["model.fusion.modalities=[ct, xray]"])
    assert build(stated.model).modalities == ("ct", "xray")
    with pytest.raises(ConfigError, match="no class 'ConcatFusio'.*did you mean 'ConcatFusion'"):
        load_config(file, schema, ["model.fusion.class_path=ConcatFusio"])
    own = {"encoders": {"ct": encoder}, "fusion": {"class_path": "mine.Fusion", "init_args": {}}}
    assert MultimodalModel.completed(own) == own


def test_the_package_imports_nothing_before_it_is_asked():
    import subprocess

    code = "import medssml, sys; print([m for m in ('torch', 'numpy', 'monai', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "load" in dir(medssml) and medssml.MultimodalModel is MultimodalModel
    with pytest.raises(AttributeError, match="nothing"):
        _ = medssml.nothing
