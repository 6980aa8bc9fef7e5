"""Text encoder: BERT from a config, or any encoder of a local Hugging Face folder."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import Encoder, refuse_keep
from medssml.layers import attendable, masked_mean

#: Of the vocabulary that `medssml.transforms.ReportTransform` learns; deid stands for what a report had removed.
SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "deid": 5}


class TextEncoder(Encoder):
    """Token ids -> BERT (Devlin et al. 2019) -> tokens, and the mean of the real ones.

    Args:
        vocab_size: of the tokenizer.
        dim: D. depth: layers. heads: attention heads.
        max_length: longest text, in tokens.
        pad_token_id: id of padding.
        mlp_ratio: hidden width of the MLPs, as a multiple of dim.
        dropout: in the layers.
        special_ids: name -> id of the tokens that are no words, where they differ from `SPECIAL_IDS`.
        local_folder: a Hugging Face folder with config.json and safetensors, which then decides all of the above;
            nothing is ever downloaded, and weights in pickle files are refused.
        config: a Hugging Face config as a dict, in place of vocab_size to dropout; what the checkpoint of a
            `local_folder` holds.
    """

    def __init__(
        self,
        vocab_size: int = 8192,
        dim: int = 256,
        depth: int = 4,
        heads: int = 4,
        max_length: int = 256,
        pad_token_id: int = 0,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        special_ids: dict[str, int] | None = None,
        local_folder: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.bert: Any
        if local_folder is not None:
            self.bert = _from_folder(local_folder)
            # A checkpoint must not need the folder again, nor name it.
            self._arguments.pop("local_folder")
            self._arguments["config"] = self.bert.config.to_diff_dict()
        elif config is not None:
            self.bert = _from_config(config)
        else:
            self.bert = _bert(vocab_size, dim, depth, heads, max_length, pad_token_id, int(dim * mlp_ratio), dropout)
        self.dim = int(self.bert.config.hidden_size)
        self.vocab_size = int(self.bert.config.vocab_size)
        self.max_length = int(self.bert.config.max_position_embeddings)
        pad = self.bert.config.pad_token_id
        self.special_ids = {**SPECIAL_IDS, "pad": pad_token_id if pad is None else pad} | (special_ids or {})

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes a dict of input_ids (n, L) and attention_mask (n, L); `keep` must be None.

        With "sees" (n, L, L) bool each token attends to those that it sees and no others; all that are real by default.
        """
        refuse_keep(self, keep)
        if not isinstance(inputs, dict):
            raise ValueError(
                f"TextEncoder received {type(inputs).__name__}, expected a dict of input_ids and attention_mask"
            )
        length = inputs["input_ids"].shape[1]
        if length > self.max_length:
            raise ValueError(
                f"a text of {length} tokens; max_length is {self.max_length}; fix: the transform's max_length"
            )
        mask = inputs["attention_mask"].bool()
        seen = _additive(inputs["sees"]) if "sees" in inputs else attendable(mask).long()
        out = self.bert(input_ids=inputs["input_ids"], attention_mask=seen, output_hidden_states=layers > 0)
        states = out.last_hidden_state
        if layers >= len(out.hidden_states or (None,)) and layers > 0:
            raise ValueError(f"{layers} layers are asked for; this encoder has {len(out.hidden_states) - 1}")
        return Encoded(states, mask, masked_mean(states, mask), tuple(out.hidden_states[-layers:]) if layers else ())

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs:
        """Consecutive words between the first and the last token of each text; see `Encoder.crop`."""
        inputs = cast(dict[str, Tensor], inputs)
        ids, length = inputs["input_ids"], inputs["attention_mask"].sum(1)
        words = (length - 2).clamp(min=0)
        kept = torch.minimum((share * words).round().long().clamp(min=1), words)
        start = (place[:, 0] * (words - kept + 1)).long()

        # The first token, the words, the last token.
        longest = int(kept.max()) + 2 if len(kept) else 0
        at = torch.arange(longest, device=ids.device)
        source = torch.where(at == 0, 0, start[:, None] + at)
        source = torch.where(at == (kept + 1)[:, None], (length - 1)[:, None], source)
        mask = at < torch.minimum(kept + 2, length)[:, None]
        picked = ids.gather(1, source.clamp(0, ids.shape[1] - 1))
        return {
            "input_ids": torch.where(mask, picked, self.special_ids["pad"]),
            "attention_mask": mask.to(length.dtype),
        }


def _additive(sees: Tensor) -> Tensor:
    """(n, 1, L, L) what is added to the attention's logits, as every attention of transformers takes it."""
    least = torch.finfo(torch.float32).min
    return torch.where(sees, 0.0, least).unsqueeze(1)


def _bert(
    vocab_size: int, dim: int, depth: int, heads: int, max_length: int, pad_token_id: int, hidden: int, dropout: float
) -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=dim,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=hidden,
        max_position_embeddings=max_length,
        pad_token_id=pad_token_id,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False)


def _from_config(config: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModel

    options = {name: value for name, value in config.items() if name not in ("model_type", "transformers_version")}
    return _without_pooler(AutoModel.from_config(AutoConfig.for_model(config["model_type"], **options)))


def _from_folder(folder: str) -> Any:
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except OSError as error:
        raise ValueError(f"no text encoder with safetensors weights in local_folder {folder!r}: {error}") from error
    return _without_pooler(model)


def _without_pooler(model: Any) -> Any:
    """Parameters that no output depends on would stop data-parallel training."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model
