"""medssml ids: the codes of results back to the ids of a study table, for who holds the key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def ids(manifest: Path, *, out: Path, results: Path | None = None) -> Path:
    """Which code in results is which study and subject of a manifest; or a table of results with its ids put back.

    Needs the key that the results were made with. What it writes names patients: keep it where the manifest is.

    Args:
        manifest: the study table, CSV or Parquet.
        out: CSV file, readable by this user alone: study_id, subject_id, study, subject (the codes), or the results.
        results: a CSV or Parquet file of results with a column study_id of codes, such as predictions.csv.

    Returns:
        the file.

    Raises:
        ValueError: the results have no column study_id, or hold a code that no study of the manifest has.
        medssml.privacy.PrivacyError: the key cannot be used.
    """
    from medssml.files import refuse_overwriting, require_ending, write_csv
    from medssml.manifest.table_text import read_raw
    from medssml.privacy import pseudonyms
    from medssml.runs import console

    require_ending("--out", out, ".csv")
    refuse_overwriting("--out", out, manifest, results)
    codes, manifest = pseudonyms(), Path(manifest)
    known = read_raw(manifest).cells[["study_id", "subject_id"]].map(str.strip)
    known = known.assign(study=known["study_id"].map(codes.study), subject=known["subject_id"].map(codes.subject))
    if results is None:
        named = known
    else:
        named = _named(Path(results), known, manifest.name)
        console.say(f"{named['study_id'].nunique():,} studies named")
    console.tell({"studies": int(named["study_id"].nunique()), "rows": len(named)})
    return write_csv(out, named, digits=None, private=True)


def _named(path: Path, known: pd.DataFrame, manifest: str) -> pd.DataFrame:
    """The results at `path` with the ids of `known` in place of its codes."""
    import pandas as pd

    from medssml.files import restored
    from medssml.privacy import KEY_VARIABLE

    text = {"study_id": str, "subject_id": str, "subject": str}
    table = pd.read_parquet(path) if path.suffix == ".parquet" else restored(pd.read_csv(path, dtype=text))
    if "study_id" not in table:
        raise ValueError(f"{path} has no column study_id; fix: give predictions.csv, impact.csv or embeddings")
    if foreign := sorted(set(table["study_id"]) - set(known["study"])):
        raise ValueError(
            f"{path}: {len(foreign)} codes, such as {foreign[0]}, are of no study in {manifest}; fix: the manifest "
            f"and the key ({KEY_VARIABLE}) that the results were made with"
        )
    study, subject = known.set_index("study")["study_id"], known.set_index("subject")["subject_id"].to_dict()
    named = table.assign(study_id=table["study_id"].map(study))
    for column in {"subject", "subject_id"} & set(table.columns):
        named[column] = named[column].map(lambda code: subject.get(code, code))
    return named
