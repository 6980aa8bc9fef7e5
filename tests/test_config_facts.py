"""What an encoder and the transforms of its modality must agree on stands in a shipped config once: &name here, *name there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from medssml.config import load_config
from medssml.runs.training_config import PretrainConfig
from medssml.shipped_configs import config_path, shipped_names

#: Fact -> the arguments that state it.
FACTS = {
    "crop": ("roi_size",),
    "size of the prepared image": ("spatial_size", "AntialiasResized.size"),
    "sampling rate": ("sfreq",),
    "channels": ("most", "max_channels"),
    "size of the vocabulary": ("vocab_size",),
    "length of a report": ("max_length",),
}
#: Arguments of a transform that say how large its image is.
SIZES = (
    *FACTS["crop"], *FACTS["size of the prepared image"], "XrayTransform.size", "CTTransform.size",
    "PrincipalComponentsd.components",
)  # fmt: skip
PATHS = [config_path(name, "pretrain") for name in shipped_names("pretrain")]
Node = dict[str, Any]


def statements(part: Any) -> Iterator[tuple[str, Any]]:
    """(argument, value) of all nodes in a part of a config, in their order; of a class also as CLASS.ARGUMENT."""
    if isinstance(part, dict):
        name = str(part.get("class_path", "")).rpartition(".")[2]
        for key, value in (part.get("init_args") or {}).items() if name else ():
            yield key, value
            yield f"{name}.{key}", value
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from statements(inner)


def stated_twice(config: Node, same: Callable[[Any], Hashable]) -> list[str]:
    """The facts of a config that are not the same wherever they are stated."""
    encoders = ((config.get("model") or {}).get("init_args") or {}).get("encoders") or {}
    roads, found = config.get("transforms") or {}, []
    for name in {**encoders, **roads}:
        encoder, road = list(statements(encoders.get(name))), list(statements(roads.get(name)))
        facts = {fact: [v for key, v in [*encoder, *road] if key in keys] for fact, keys in FACTS.items()}
        # What the encoder sees is what the last step that says a size makes.
        last = [value for key, value in road if key in SIZES][-1:]
        seen = [value for key, value in encoder if key == "input_size"]
        facts["size that the encoder sees"] = [*seen, *last] if seen else []
        found += [f"{name}: {fact}" for fact, values in facts.items() if len({same(value) for value in values}) > 1]
    return found


def value_of(value: Any) -> Hashable:
    """One number stands for a square."""
    return value if not isinstance(value, list) else value[0] if len(set(value)) == 1 else tuple(value)


class Anchored(yaml.SafeLoader):
    """Plain values in which what an alias names is one object: numbers and texts too."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
            return node
        return super().construct_object(node, deep=True)


def place_of(value: Any) -> Hashable:
    """Where a value is written; of a square from one number, where that number is."""
    same = isinstance(value, list) and len({id(item) for item in value}) == 1
    return id(value[0] if same else value)


def written(text: str) -> Node:
    return yaml.load(text, Anchored)  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_config_states_each_fact_once(path: Path) -> None:
    assert stated_twice(written(path.read_text("utf-8")), place_of) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_no_alias_can_say_agrees_too(path: Path) -> None:
    """With what the config is based on, and counts."""
    config = load_config(path, PretrainConfig).written()
    assert stated_twice(config, value_of) == []
    for name, encoder in config["model"]["init_args"]["encoders"].items():
        arguments, network = encoder["init_args"], encoder["init_args"].get("network", {})
        if encoder["class_path"] == "TableEncoder":
            assert arguments["features"] == len(config["transforms"][name]["init_args"]["features"])
        if network.get("class_path", "").endswith(".FullyConnectedNet"):
            assert network["init_args"]["in_channels"] == math.prod(arguments["input_size"])


@pytest.mark.parametrize(
    ("alias", "again", "other", "facts"),
    [
        ("size: *film", "size: 48", "size: 64", ["xray: size of the prepared image", "xray: size that the encoder sees"]),
        ("[*film, *film], p", "[48, 48], p", "[64, 64], p", ["xray: size of the prepared image"]),
        ("*crop, r", "[32, 32, 32], r", "[16, 16, 16], r", ["ct: crop"]),
        ("*crop}}\n    - {class_path: monai.transforms.RandG", "[32, 32, 32]}}\n    - {class_path: monai.transforms.RandG",
         "[32, 32, 16]}}\n    - {class_path: monai.transforms.RandG", ["ct: crop", "ct: size that the encoder sees"]),
        ("*hertz", "100", "50", ["eeg: sampling rate"]),
        ("*words", "256", "512", ["report: size of the vocabulary"]),
        ("*length", "48", "32", ["report: length of a report"]),
    ],
)  # fmt: skip
def test_a_fact_that_is_stated_again_is_found(alias: str, again: str, other: str, facts: list[str]) -> None:
    text = config_path("smoke/pretrain", "pretrain").read_text("utf-8")
    assert text.count(alias) == 1
    assert stated_twice(written(text.replace(alias, again)), place_of) == facts
    assert stated_twice(yaml.safe_load(text.replace(alias, again)), value_of) == []
    assert stated_twice(yaml.safe_load(text.replace(alias, other)), value_of) == facts
