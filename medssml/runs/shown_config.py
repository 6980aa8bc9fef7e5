"""`--print-config`: the resolved config as YAML that can be used again, with where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from medssml.runs import console
from medssml.shipped_configs import shipped_folder
from medssml.yaml_lines import Key, Lines

if TYPE_CHECKING:
    from medssml.runs.training_config import Training

_COLUMN = 64


def shown(config: Training, resolved: Mapping[str, Any], origins: Lines, *, slurm: bool) -> dict[str, Any]:
    """What `--print-config`, or `--print-slurm`, puts on stdout in place of a training."""
    if not slurm:
        return show_config(resolved, origins)
    from medssml.runs.slurm import script

    text = script(console.command(), config.trainer, config.data)
    console.payload(text)
    return {"script": text}


def show_config(config: Mapping[str, Any], origins: Lines) -> dict[str, Any]:
    """Puts the config on stdout, and nothing else; with ``--json`` it is the result.

    Args:
        config: resolved.
        origins: where its keys were written; see `medssml.config.read_config`.

    Returns:
        {"config": ...}.
    """
    for line in commented(config, origins):
        console.payload(line)
    return {"config": dict(config)}


def commented(config: Mapping[str, Any], origins: Lines) -> Iterator[str]:
    """The lines of a config: of each value a comment with the file and line, the argument, or "default"."""
    shipped = f"{shipped_folder().parent}/"
    for line, key in _lines(config, (), 0):
        said = "" if key is None else f"# {(origins.written(key) or 'default').removeprefix(shipped)}"
        yield f"{line.ljust(_COLUMN)}  {said}" if said else line


def _lines(value: Any, key: Key, depth: int) -> Iterator[tuple[str, Key | None]]:
    """(line, key of the value that stands in it), of a mapping or a list."""
    pad = "  " * depth
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entry(f"{pad}{_flow(str(name))}:", inner, (*key, name), depth)
    else:
        for place, inner in enumerate(value):
            if not isinstance(inner, Mapping) or not inner:
                yield f"{pad}- {_flow(inner)}", (*key, place)
                continue
            # The first key of a part stands beside its dash.
            for number, (line, at) in enumerate(_lines(inner, (*key, place), depth + 1)):
                yield (f"{pad}- {line[len(pad) + 2 :]}" if number == 0 else line), at


def _entry(head: str, value: Any, key: Key, depth: int) -> Iterator[tuple[str, Key | None]]:
    parts = isinstance(value, (list, tuple)) and any(isinstance(inner, Mapping) for inner in value)
    if (isinstance(value, Mapping) and value) or parts:
        yield head, None
        yield from _lines(value, key, depth + 1)
    else:
        yield f"{head} {_flow(value)}", key


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(
        list(value) if isinstance(value, tuple) else value, default_flow_style=True, allow_unicode=True, width=1 << 30
    )
    return text.removesuffix("...\n").strip()
