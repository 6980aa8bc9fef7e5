"""Which words a report has, however they are put: latent semantic analysis beside the transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssml.batch import Inputs
from medssml.encoders.descriptor import LEAST, Descriptor
from medssml.encoders.text import SPECIAL_IDS

#: Multiplier of the hash of a pair of words; any odd number far from a power of two will do.
PAIR = 1_000_003


class WordDescriptor(Descriptor):
    """z_k = (v_k x - m_k) / s,  x = w / |w|,  w_t = (1 + log n_t) idf_t: latent semantic analysis of words and pairs of words.

    n_t is how often a report has token t, or a pair of neighbouring tokens (hashed to buckets, as in fastText, Joulin et al.
    2017), idf_t = 1 + log((1 + N) / (1 + N_t)) of N training reports of which N_t have it, and v_k are the right singular
    vectors of the training reports (Deerwester et al. 1990). All z_k are divided by one s, so that their mean variance is 1:
    what few reports share stays small, as it is in TF-IDF, where a penalty on weights takes it for less likely. Few labels
    suffice to say which words tell of a finding; a transformer has to find the words first. It counts the tokens that it is
    given: a word that is masked is not counted.

    [1] Deerwester, Dumais, Furnas, Landauer, Harshman, Indexing by latent semantic analysis, JASIS 1990.

    Args:
        vocab_size: of the tokenizer.
        components: K.
        pairs: hash buckets for pairs of tokens; 0 for single ones only.
        min_subjects: a token, or pair, in the reports of fewer training subjects does not count: it may be of a name.
        special_ids: tokens that are no words; None = those of a vocabulary that is learned.
    """

    def __init__(
        self,
        vocab_size: int = 8192,
        components: int = 128,
        pairs: int = 4096,
        min_subjects: int = 5,
        special_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__(vocab_size + pairs, components)
        self.vocab_size, self.pairs, self.min_subjects = vocab_size, pairs, min_subjects
        special = sorted(SPECIAL_IDS.values() if special_ids is None else special_ids)
        self.register_buffer("special", torch.tensor(special), persistent=False)
        self.register_buffer("idf", torch.zeros(vocab_size + pairs))
        self.special: Tensor
        self.idf: Tensor
        self._seen: list[tuple[Any, Any]] = []

    def measure(self, inputs: Inputs) -> Tensor:
        """(n, R) x of a dict of input_ids (n, L) and attention_mask (n, L)."""
        weighed = torch.where(self.idf > 0, self._frequencies(inputs) * self.idf, 0.0)
        return weighed / weighed.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def _frequencies(self, inputs: Inputs) -> Tensor:
        """(n, R) 1 + log n_t, 0 where n_t is 0."""
        if not isinstance(inputs, dict):
            raise ValueError(
                f"WordDescriptor received {type(inputs).__name__}, expected a dict of input_ids and attention_mask"
            )
        if inputs["input_ids"].numel() and int(inputs["input_ids"].max()) >= self.vocab_size:
            raise ValueError(
                f"a token {int(inputs['input_ids'].max())} of a vocabulary of {self.vocab_size}; fix: vocab_size of the "
                "WordDescriptor, as the transform has it"
            )
        counts = word_counts(inputs["input_ids"], inputs["attention_mask"], self.special, self.vocab_size, self.pairs)
        return torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0)

    def see(self, inputs: Inputs, subjects: Tensor) -> None:
        """See `Descriptor.see`."""
        from scipy import sparse

        self._seen.append((sparse.csr_matrix(self._frequencies(inputs).double().cpu().numpy()), subjects.cpu().numpy()))

    def learn(self) -> None:
        """See `Descriptor.learn`; nothing either where fewer than two words are shared, or all reports are alike."""
        from scipy import sparse
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize

        seen, self._seen = self._seen, []
        if sum(len(subjects) for _, subjects in seen) < 2:
            return
        x = sparse.vstack([rows for rows, _ in seen]).tocsr()
        known = self._shared(x, np.concatenate([subjects for _, subjects in seen]))
        count = min(self.dim, x.shape[0] - 1, int(known.sum()) - 1)
        if count < 1:
            return
        idf = np.where(known, 1 + np.log((1 + x.shape[0]) / (1 + x.getnnz(axis=0))), 0.0)
        self.idf.copy_(torch.as_tensor(idf))
        x = normalize(x @ sparse.diags(idf))
        vectors = TruncatedSVD(count, n_iter=10, random_state=0).fit(x).components_
        found = x @ vectors.T
        sd = float(np.sqrt(found.var(0).mean()))
        if sd > LEAST:
            self._fit(vectors / sd, found.mean(0) / sd)

    def _shared(self, x: Any, subjects: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(R,) bool: what the reports x (n, R) of at least `min_subjects` subjects have."""
        from scipy import sparse

        owner = np.unique(subjects, return_inverse=True)[1]
        of_subject = sparse.csr_matrix((np.ones(len(owner)), (owner, np.arange(len(owner))))) @ (x > 0).astype(float)
        return np.asarray((of_subject > 0).sum(0)).ravel() >= self.min_subjects


def word_counts(input_ids: Tensor, attention_mask: Tensor, special: Tensor, words: int, pairs: int) -> Tensor:
    """(n, words + pairs) how often each token, and each bucket of pairs of neighbouring tokens, is in a text.

    Args:
        input_ids: (n, L) int64. attention_mask: (n, L). special: ids that are no words.
    """
    word = attention_mask.bool() & ~torch.isin(input_ids, special)
    counts = torch.zeros(len(input_ids), words + pairs, device=input_ids.device)
    counts.scatter_add_(1, input_ids, word.float())
    if pairs:
        bucket = (input_ids[:, :-1] * PAIR + input_ids[:, 1:]) % pairs + words
        counts.scatter_add_(1, bucket, (word[:, :-1] & word[:, 1:]).float())
    return counts
