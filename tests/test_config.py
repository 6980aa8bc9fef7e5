"""describe and build are inverse for every encoder, fusion and model; nothing else can be built."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from medssml import yaml_lines
from medssml.config import Configured, build, describe, public_classes
from medssml.encoders import EEGTransformer, Encoder, ResNet, TextEncoder, ViT
from medssml.fusion import ConcatFusion, Fusion, MaskedAttention
from medssml.model import MultimodalModel

MAKERS = {
    "vit": lambda: ViT((16, 16), 8, 24, 1, 3, pool="cls"),
    "vit3d": lambda: ViT([16, 16, 16], [8, 8, 4], dim=24, depth=1, heads=3, skip_empty=True),
    "resnet": lambda: ResNet(2, 24, [1, 1, 1, 1], widths=(8, 8, 8, 8)),
    "eeg": lambda: EEGTransformer(24, 1, 3, 50),
    "text": lambda: TextEncoder(50, 24, 1, 3, 16),
    "concat": lambda: ConcatFusion(("ct", "report"), 8, dropout=0.1),
    "attention": lambda: MaskedAttention(("ct", "report"), 8, 1, 2, tokens="all"),
}


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_describe_and_build_are_inverse(make):
    module = make()
    node = json.loads(json.dumps(describe(module)))
    again = build(node, Fusion if isinstance(module, Fusion) else Encoder)
    assert type(again) is type(module)
    assert shapes(again) == shapes(module)
    assert describe(again) == node
    again.load_state_dict(module.state_dict())


def test_a_model_is_a_node_of_nodes():
    encoders = {"ct": MAKERS["vit3d"](), "report": MAKERS["text"]()}
    model = MultimodalModel(encoders, MAKERS["concat"](), {"finding": {"kind": "binary"}})
    model.add_task("grade", {"kind": "multiclass", "n_classes": 4})
    node = json.loads(json.dumps(describe(model)))
    assert node["init_args"]["encoders"]["ct"]["class_path"] == "ViT"
    again = build(node, MultimodalModel)
    assert shapes(again) == shapes(model) and again.tasks == model.tasks


def test_every_public_name_exists():
    import importlib

    for name, package in public_classes().items():
        assert isinstance(getattr(importlib.import_module(package), name), type), name


@pytest.mark.parametrize(
    ("node", "error", "says"),
    [
        ({"class_path": "Vit", "init_args": {}}, KeyError, "did you mean 'ViT'"),
        ({"class_path": "os.system", "init_args": {}}, KeyError, "--plugin os"),
        ({"class_path": "medssml.os.system", "init_args": {}}, KeyError, "no class"),
        (
            {"class_path": "ConcatFusion", "init_args": {"modalities": ["a"], "dims": 8}},
            TypeError,
            "did you mean 'dim'",
        ),
        ({"class_path": "ConcatFusion", "init_args": {"modalities": ["a"], "dim": 8}}, TypeError, "is no Encoder"),
    ],
)
def test_refuses_what_it_does_not_know(node, error, says):
    with pytest.raises(error, match=says):
        build(node, Encoder if "is no" in says else None)


@pytest.fixture
def plugin():
    """A package outside medssml with an encoder that knows nothing of medssml."""

    class Plain(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.dim = dim
            self.linear = nn.Linear(2, dim)

        def forward(self, inputs):
            return self.linear(inputs)

    module = types.ModuleType("hospital_encoders")
    Plain.__module__ = "hospital_encoders"
    module.Plain = Plain
    sys.modules["hospital_encoders"] = module
    yield Plain
    del sys.modules["hospital_encoders"]


def test_a_class_from_elsewhere_needs_its_package_named(plugin):
    node = {"class_path": "hospital_encoders.Plain", "init_args": {"dim": 6}}
    with pytest.raises(KeyError, match="--plugin hospital_encoders"):
        build(node)
    built = build(node, nn.Module, plugins=["hospital_encoders"])
    assert built.dim == 6
    assert describe(built) == node


def test_only_what_a_config_can_name_is_described(plugin):
    with pytest.raises(TypeError, match="derive its class"):
        describe(plugin(3))


def test_defaults_are_not_written_and_handed_in_parts_are_left_out():
    class Part(Configured):
        _handed_in = ("model",)

        def __init__(self, model: object, rate: float = 0.5, *, names: tuple[str, ...] = ()) -> None:
            self.rate = rate

    assert describe(Part(object(), names=("a", "b")))["init_args"] == {"names": ["a", "b"]}


def test_a_config_takes_from_its_base_what_it_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "under.yaml").write_text(
        "optim: {lr: 0.1, warmup: 0.2}\nseed: 3\nfusion: {class_path: A, init_args: {x: 1, y: 2}}\nlist: [1, 2, 3]\n"
    )
    (tmp_path / "over.yaml").write_text(
        "base: under.yaml\noptim: {lr: 0.5}\nfusion: {class_path: B, init_args: {x: 5}}\nlist: [9]\n"
    )
    value, lines = yaml_lines.read_with_base(tmp_path / "over.yaml")
    assert value == {
        "optim": {"lr": 0.5, "warmup": 0.2},
        "seed": 3,
        "fusion": {"class_path": "B", "init_args": {"x": 5}},
        "list": [9],
    }
    assert lines.where(("optim", "lr")) == f"{tmp_path / 'over.yaml'}:2"
    assert lines.where(("optim", "warmup")) == f"{tmp_path / 'under.yaml'}:1"
    assert lines.where(("seed",)) == f"{tmp_path / 'under.yaml'}:2"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.yaml": "base: a.yaml\n"}, "a.yaml is based on this file"),
        ({"a.yaml": "base: b.yaml\n", "b.yaml": "base: a.yaml\n"}, "based on this file; fix:"),
        ({"a.yaml": "base: c.yaml\n"}, "base 'c.yaml' is not there; fix:"),
        ({"a.yaml": "base: [1]\n"}, r"a.yaml:1: base is \[1\]; fix:"),
    ],
)
def test_a_wrong_base_is_told_with_its_line(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(yaml_lines.YamlError, match=said):
        yaml_lines.read_with_base(tmp_path / "a.yaml")
