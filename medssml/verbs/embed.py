"""medssml embed: embeddings for any subset of modalities, as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def embed(
    *,
    checkpoint: str,
    manifest: Path | None = None,
    shards: str | None = None,
    out: Path,
    split: Literal["test", "val", "train", "all"] = "all",
    subset: str | None = None,
    device: str = "auto",
    cache: Path | None = None,
    workers: int = 0,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    plugins: Sequence[str] = (),
) -> Path | int:
    """One row per study: study_id, subject_id, split, subset (what was seen), and the embedding as columns e0, e1, ...

    Args:
        checkpoint: run folder, or its model folder.
        manifest: the study table, CSV or Parquet; labels are not needed.
        shards: in place of a manifest, where medssml prepare --shards wrote: a folder or a URL.
        out: Parquet file.
        split: train, val, test, or all.
        subset: show only these modalities, such as ct+report; studies with none of them are left out.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: ids as the manifest has them, not as keyed hashes; see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.

    Returns:
        the file; exit code 4 where more studies were left out than the limit.

    Raises:
        medssml.checkpoint.CheckpointError: no model, or one that is refused. KeyError: no such modality.
    """
    import numpy as np
    import pandas as pd

    from medssml.bounds import bounded
    from medssml.data.prepared_studies import prepare_studies
    from medssml.evaluation.encoded_studies import bits, encode_studies, subset_mask, subset_name
    from medssml.evaluation.subsets import embed_subset
    from medssml.files import refuse_overwriting, require_ending
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import chosen_device, conclude, open_studies, say_hidden, write_parquet
    from medssml.runs.modality_account import of_reported
    from medssml.runs.result_tables import say_embeddings

    bounded("--workers", workers, least=0)
    require_ending("--out", out, ".parquet")
    refuse_overwriting("--out", out, manifest)
    where, out = chosen_device(device), Path(out)
    predictor = load(checkpoint, plugins, where)
    everything = (1 << len(predictor.modalities)) - 1
    mask = everything if subset is None else subset_mask(subset, predictor.modalities)
    table, prepared = open_studies(
        manifest, shards, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, labels=False,
    )  # fmt: skip
    of_reported(checkpoint, predictor.modalities, table, split)
    table = table if split == "all" else table.split(split)
    studies = prepare_studies(table, predictor.transforms, prepared, num_workers=workers)
    encoded = encode_studies(predictor.model, studies.batches(), where)
    vectors = embed_subset(predictor.model, encoded, mask, where)
    seen = bits(encoded.has) & mask
    rows = np.flatnonzero(seen > 0)
    frame = pd.DataFrame(
        {
            "study_id": np.array(encoded.study_id, dtype=object)[rows],
            "subject_id": studies.manifest.subject_codes[rows],
            "split": studies.manifest.splits[rows],
            "subset": [subset_name(int(b), encoded.modalities) for b in seen[rows]],
        }
    )
    columns = pd.DataFrame(vectors[rows], columns=[f"e{i}" for i in range(vectors.shape[1])])
    write_parquet(out, pd.concat([frame, columns], axis=1))
    say_embeddings(frame["subset"], vectors.shape[1])
    say_hidden(len(studies.manifest) - len(rows), studies.asked, subset)
    console.tell({"embedded": len(rows), "dimensions": vectors.shape[1]})
    return conclude([studies], out, "embed")
