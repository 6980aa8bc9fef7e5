"""What a run reads must not lie where it writes: a run that starts over removes what an earlier one left there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medssml.runs.run_folder import OWN, RunFolderError


def refuse_overlap(out: Path, inputs: Mapping[str, str | Path | None]) -> None:
    """Refuses a run folder that is one of its inputs, holds one in what it writes, or lies in a model.

    Args:
        out: the run folder.
        inputs: flag -> file or folder; None where it was not given. What is no path of this machine is passed over.

    Raises:
        RunFolderError: with the flag.
    """
    folder = Path(out).resolve()
    for flag, given in inputs.items():
        if given is None or "://" in str(given):
            continue
        place = Path(given).resolve()
        if place == folder or any(folder / name in (place, *place.parents) for name in OWN):
            raise RunFolderError(
                f"--out {out} is where {flag} lies, which the run reads; fix: another --out, as what a run writes may be "
                f"removed"
            )
        model = place if (place / "model.safetensors").exists() else place / "model"
        if (model / "model.safetensors").exists() and model in (folder, *folder.parents):
            raise RunFolderError(f"--out {out} lies in the model of {flag}; fix: another --out")
