"""What a user may set about optimisation and about the run. Plain values only: a config is checked before torch loads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from medssml.bounds import bounded


@dataclass(frozen=True)
class Optim:
    """An optimiser with warm-up, a schedule and clipping.

    Args:
        name: "adamw", "sgd" with momentum, or "lars" for large batches.
        lr: learning rate after warm-up.
        weight_decay: for the weights of linear maps and convolutions only; never for biases, norms or embeddings.
        betas: AdamW's moments; 0.95 for the second as in masked autoencoders (He 2022).
        warmup: linear warm-up, as a fraction of all steps.
        warmup_steps: the same in steps; takes the place of `warmup`.
        schedule: what follows warm-up; "cosine" and "linear" fall to `final` times `lr`.
        final: fraction of `lr` at the last step.
        clip_norm: gradients are scaled down to this norm; 0 switches it off.
        momentum: of SGD and LARS.
        scales: prefix of a parameter's name -> its learning rate as a multiple of `lr`, such as "encoders": 0.1 and
            "encoders.report": 1.0. The longest prefix wins; 0 freezes. Names are those of the model; what an objective
            has itself is "objectives.0" and so on.
        layer_decay: d; of an encoder of n blocks block k learns at lr d^(n + 1 - k), what comes before the first at lr
            d^(n + 1), all behind the last at lr: what is near the input, and most general, moves least. 0.75 as in BEiT
            (Bao et al. 2022) and masked autoencoders (He et al. 2022); 1 for none.
    """

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.05
    warmup_steps: int | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0
    clip_norm: float = 1.0
    momentum: float = 0.9
    scales: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if self.name not in ("adamw", "sgd", "lars"):
            raise ValueError(f"optim.name is {self.name!r}; accepted: adamw, sgd, lars")
        for prefix, scale in self.scales.items():
            bounded(f"optim.scales.{prefix}", scale, least=0)
        for place, beta in enumerate(self.betas):
            bounded(f"optim.betas.{place}", beta, least=0, below=1)
        bounded("optim.lr", self.lr, above=0, below=inf)
        bounded("optim.weight_decay", self.weight_decay, least=0, below=inf)
        bounded(
            "optim.warmup, a fraction of all steps (optim.warmup_steps counts them),", self.warmup, least=0, below=1
        )
        bounded("optim.warmup_steps", self.warmup_steps, least=0)
        bounded("optim.final, a fraction of optim.lr,", self.final, least=0, most=1)
        bounded("optim.layer_decay", self.layer_decay, above=0, most=1)
        bounded("optim.clip_norm", self.clip_norm, least=0)
        bounded("optim.momentum", self.momentum, least=0, below=1)
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"optim.schedule is {self.schedule!r}; accepted: cosine, linear, constant")

    def without(self, gone: Collection[str]) -> Optim:
        """For a model without the modalities `gone`: learning rates of their encoders and projections go with them."""
        absent = {(part, name) for part in ("encoders", "project") for name in gone}
        left = {prefix: scale for prefix, scale in self.scales.items() if tuple(prefix.split(".")[:2]) not in absent}
        return replace(self, scales=left)


Precision = Literal["auto", "32", "bf16-mixed"]

#: What is counted, and is one at least wherever it is set.
_COUNTS = (
    "max_epochs", "max_steps", "accumulate", "encoder_chunk", "save_every_steps", "log_every", "devices", "num_nodes", "patience",
    "limit_train_batches", "limit_val_batches", "bad_steps",
)  # fmt: skip


@dataclass(frozen=True)
class TrainerSettings:
    """How long, on what, and how often to look and to save.

    Args:
        max_epochs: passes over the training studies.
        max_steps: optimiser steps; of the two, what ends first.
        precision: "auto" is bf16-mixed on a GPU of Ampere or later and "32" anywhere else.
        accumulate: batches per optimiser step.
        encoder_chunk: studies that pass an encoder at a time. A contrast sees the whole batch, with the same loss and gradients,
            while the memory of the encoders is that of a chunk; each encodes twice (GradCache, Gao et al. 2021). None for all.
        save_every_steps: a killed run loses at most this many steps.
        validate_every: epochs between validations; 0 switches validation off.
        patience: stop after this many validations without a better score; None never stops early.
        ema: decay of a running mean of the weights, which is then what is validated and saved; None for none.
        devices: how many, on each node. num_nodes: how many machines.
        device: "auto", "cpu" or "cuda".
        log_every: steps per row of history.csv.
        limit_train_batches: batches per epoch at most. limit_val_batches: the same for validation.
        bad_steps: stop after this many steps in a row without finite gradients.
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    precision: Precision = "auto"
    accumulate: int = 1
    encoder_chunk: int | None = None
    save_every_steps: int = 100
    validate_every: int = 1
    patience: int | None = None
    ema: float | None = None
    devices: int = 1
    num_nodes: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 10
    limit_train_batches: int | None = None
    limit_val_batches: int | None = None
    bad_steps: int = 10

    def __post_init__(self) -> None:
        if self.max_epochs is None and self.max_steps is None:
            raise ValueError("trainer has neither max_epochs nor max_steps; fix: set one, such as max_epochs: 100")
        for name in _COUNTS:
            bounded(f"trainer.{name}", getattr(self, name), least=1)
        bounded("trainer.validate_every", self.validate_every, least=0)
        bounded("trainer.ema", self.ema, above=0, below=1)
        object.__setattr__(self, "precision", str(self.precision))
        if self.precision not in ("auto", "32", "bf16-mixed"):
            raise ValueError(f"trainer.precision is {self.precision!r}; accepted: auto, 32, bf16-mixed")

    def epoch_batches(self, length: int) -> int:
        """Batches per epoch, of a loader that has `length`."""
        return length if self.limit_train_batches is None else min(length, self.limit_train_batches)

    def total_steps(self, length: int) -> int:
        """Optimiser steps of the whole run, from a loader's number of batches per epoch."""
        limits = [] if self.max_steps is None else [self.max_steps]
        if self.max_epochs is not None:
            limits.append(max(1, self.max_epochs * self.epoch_batches(length) // self.accumulate))
        return min(limits)
