"""How much the label of each study counts, whatever is seen of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from medssml.statistics.bootstrap import Array


class LabelWeights(NamedTuple):
    """Of one task, by study id; a study that is not named counts 1.

    label: of the label itself. whole: where all that a study has is seen. seen: factors of the label where modality m is
    looked at, a column each; of a subset their product counts, whatever else the study has.
    """

    label: pd.Series
    whole: pd.Series
    seen: pd.DataFrame

    def of_whole(self, studies: Sequence[str]) -> Array:
        """(n,) of what studies have."""
        return self.whole.reindex(list(studies)).fillna(1.0).to_numpy()

    def of_label(self, studies: Sequence[str]) -> Array:
        """(n,) of the labels alone."""
        return self.label.reindex(list(studies)).fillna(1.0).to_numpy()

    def factors(self, studies: Sequence[str], modalities: Sequence[str]) -> Array:
        """(n, M) by modality."""
        found = self.seen.reindex(index=list(studies), columns=list(modalities))
        return np.asarray(found.fillna(1.0).to_numpy(dtype=float))
