"""The configs that come with medssml, by name from anywhere: `cohort`, `pretrain/cohort`, `smoke/pretrain`.

They lie in `configs/` beside the package in a checkout, and inside the package where it is installed from a wheel.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from medssml.schema import ConfigError
from medssml.yaml_lines import read

#: What a verb reads: the first folder in which a bare name is looked for.
Kind = Literal["pretrain", "finetune"]


def shipped_folder() -> Path:
    """Where the shipped configs lie.

    Raises:
        ConfigError: the installation is not whole.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "pretrain").is_dir():
            return folder
    raise ConfigError("the shipped configs are not there: this installation is not whole; fix: install medssml again")


def shipped_names(kind: Kind) -> list[str]:
    """The names that `config_path` knows for a verb: `cohort` of its own kind, `smoke/simclr` of the small ones.

    Of `smoke/`, those for fine-tuning are called `finetune...`, all others are for pretraining.
    """
    root = shipped_folder()
    own = sorted(file.stem for file in (root / kind).glob("*.yaml"))
    small = sorted(file.stem for file in (root / "smoke").glob("*.yaml"))
    fitting = [name for name in small if name.startswith("finetune") == (kind == "finetune")]
    return [*own, *(f"smoke/{name}" for name in fitting)]


def built_on(base: str, kind: Kind) -> list[str]:
    """The shipped configs of a verb that build on another one, however far, that one first."""
    own = [name for name in shipped_names(kind) if "/" not in name]
    under = {name: Path((read(config_path(name, kind))[0] or {}).get("base") or "").stem for name in own}

    def built(name: str) -> bool:
        return name == base or (name in under and built(under[name]))

    return [base, *(name for name in own if name != base and built(name))]


def prompts_path(given: str | Path) -> Path:
    """The file that `--zero-shot` means: a file of this path, or shipped prompts of this name, such as `phantom`.

    Raises:
        ConfigError: neither, with all names.
    """
    path, shipped = Path(given), {file.stem: file for file in sorted((shipped_folder() / "prompts").glob("*.yaml"))}
    if path.is_file():
        return path
    if str(given) in shipped:
        return shipped[str(given)]
    raise ConfigError(
        f"{given}: no such file of prompts, and none shipped; fix: a path, or one of {', '.join(shipped)}"
    )


def shipped(name: str) -> Path | None:
    """The shipped config of a name with its folder, `pretrain/cohort` or `configs/pretrain/cohort.yaml`; None where none is."""
    path = Path(name)
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    if not parts or path.is_absolute() or ".." in parts:
        return None
    place = shipped_folder().joinpath(*parts)
    return next((file for file in (place, place.with_name(f"{place.name}.yaml")) if file.is_file()), None)


def config_path(given: str | Path, kind: Kind) -> Path:
    """The file that `--config` means: a file of this path, or the shipped config of this name.

    A name may have its folder and its ending or not: `cohort`, `pretrain/cohort`, `configs/pretrain/cohort.yaml`.

    Raises:
        ConfigError: neither, with the nearest name and all names.
    """
    path = Path(given)
    if path.is_file():
        return path
    found = None if path.is_absolute() else shipped(f"{kind}/{path}") or shipped(str(path))
    if found is not None:
        return found
    name, names = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path, shipped_names(kind)
    near = difflib.get_close_matches(
        name.as_posix().removesuffix(".yaml").removeprefix(f"{kind}/"), names, n=1, cutoff=0.6
    )
    meant = f"; did you mean {near[0]!r}?" if near else "; fix: check the path, or give the name of a shipped one,"
    raise ConfigError(
        f"{given}: no such config file, and none shipped for {kind} has this name{meant} shipped: {', '.join(names)}"
    )
