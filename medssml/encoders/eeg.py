"""EEG transformer over channel-time patches; takes any subset of the named channels, in any order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import MaskableEncoder, kept_mask
from medssml.encoders.crops import crop_rows
from medssml.encoders.scalp import PATTERNS, scalp_patterns
from medssml.layers import Transformer, gather_tokens, masked_mean, sincos_positions
from medssml.readers.channels import AGAINST, CHANNELS

#: Band edges in Hz: delta, low and high theta, low and high alpha, low and high beta, low gamma.
BANDS = ((0.5, 4.0), (4.0, 6.0), (6.0, 8.0), (8.0, 10.0), (10.0, 13.0), (13.0, 20.0), (20.0, 30.0), (30.0, 45.0))

#: Power floor, (1 uV)^2 in units of (100 uV)^2: low for any recording; a flat channel has a finite logarithm.
POWER_FLOOR = 1e-4

TARGETS = ("raw", "log_spectrum", "both")


class EEGTransformer(MaskableEncoder):
    """Token of channel c and time patch t = linear(raw) + mlp(log spectrum, log band powers) + name(c) + time(t).

    Channel-time patches with a learned embedding of the channel's name follow LaBraM (Jiang et al. 2024). The spectrum
    of the Hann-windowed patch enters beside the raw signal because power is quadratic in it: no linear map reaches it.

    pooled = [map of log band power over the scalp; linear(mean of the transformer's tokens)]. For each of K spatial
    filters and each band, the map holds

        mean over tokens of  filter_k(name(c)) * (log power - its mean over the tokens),  and for k = 0 that mean itself.

    A mean over channels alone would leave no trace of where power is. The filters begin as spherical harmonics, so that
    a read-out of the frozen encoder finds power by place, and they learn with the rest. The means are over what is there:
    a louder amplifier or a missing channel changes the map little.

    A bipolar derivation A-B, the potential at A less that at B, has the name name(A) - name(B), which turns its sign with
    the signal's. Power has no sign: its filter is the mean of filter(A) and filter(B), as if it lay halfway between
    them, which is where FieldTrip puts it (Oostenveld et al. 2011).

    The inputs are the dict of `medssml.batch.Batch`: "signal" (n, C, T) in units of 100 uV, "channels" (n, C) int64
    `medssml.readers.channels.channel_number`, 0 for padding, "length" (n,) valid samples. Tokens are in the order
    (channel, time), N = C * (T // patch_samples); samples after the last whole patch are left out.

    Args:
        dim: D. depth: blocks. heads: attention heads.
        patch_samples: samples in a patch, such as one second.
        sfreq: sampling rate in Hz, that of the transform.
        max_patches: longest recording, in patches.
        channel_names: size of the vocabulary of channel names; None for `medssml.readers.eeg.CHANNELS`.
        mlp_ratio, dropout, drop_path: of the blocks.
        pool: "mean" of the transformer's real tokens, or "attention", a mean with learned weights.
        filters: K, at most 9; None for as many as leave a quarter of `dim` to the transformer, 9 from dim 96 on.
        target: what `patches` gives: "raw", standardised; "log_spectrum", as its phase cannot be predicted; or "both".
    """

    standardised = True

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        patch_samples: int = 100,
        sfreq: float = 100.0,
        *,
        max_patches: int = 1024,
        channel_names: int | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pool: str = "mean",
        target: str = "both",
        filters: int | None = None,
    ) -> None:
        super().__init__()
        if pool not in ("mean", "attention"):
            raise ValueError(f"pool {pool!r}; accepted: mean, attention")
        if target not in TARGETS:
            raise ValueError(f"target {target!r}; accepted: {', '.join(TARGETS)}")
        if channel_names is None:
            channel_names = len(CHANNELS)
        # A checkpoint keeps the vocabulary that it was trained with, should a later version know more names.
        self._arguments["channel_names"] = channel_names
        self.dim = dim
        self.patch_samples = patch_samples
        self.max_patches = max_patches
        self.target = target
        self.register_buffer("window", torch.hann_window(patch_samples), persistent=False)
        self.register_buffer("bands", band_matrix(patch_samples, sfreq), persistent=False)
        self.window: Tensor
        self.bands: Tensor
        bins = patch_samples // 2 + 1
        self.patch_dim = {"raw": patch_samples, "log_spectrum": bins, "both": patch_samples + bins}[target]
        self.embed_raw = nn.Linear(patch_samples, dim)
        self.embed_power = nn.Sequential(nn.Linear(bins + len(self.bands), 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.name = nn.Embedding(channel_names, dim)
        nn.init.normal_(self.name.weight, std=0.02)
        time = torch.arange(max_patches, dtype=torch.float32).unsqueeze(1)
        self.register_buffer("time", sincos_positions(time, dim), persistent=False)
        self.time: Tensor
        self.transformer = Transformer(dim, depth, heads, mlp_ratio, dropout, drop_path)
        self.score = nn.Linear(dim, 1) if pool == "attention" else None
        patterns = scalp_patterns(_vocabulary(channel_names), _filter_count(filters, dim, len(self.bands)))
        self.filters = nn.Embedding.from_pretrained(patterns, freeze=False)
        self.context = nn.Linear(dim, dim - patterns.shape[1] * len(self.bands))

    def patches(self, inputs: Inputs, keep: Tensor | None = None) -> Tensor:
        """(n, N, P) standardised raw patch, log spectrum, or both; (n, K, P) with `keep`."""
        raw = self._raw(_as_dict(inputs), keep)
        parts = []
        if self.target in ("raw", "both"):
            centred = raw - raw.mean(-1, keepdim=True)
            parts.append(centred / (centred.square().mean(-1, keepdim=True) + POWER_FLOOR).sqrt())
        if self.target in ("log_spectrum", "both"):
            parts.append(log_power(self._power(raw)))
        return torch.cat(parts, dim=-1)

    def token_mask(self, inputs: Inputs) -> Tensor:
        """(n, N) bool: the channel has a name and the patch lies within the recording; a short first one counts."""
        inputs = _as_dict(inputs)
        count = self._count(inputs["signal"])
        patch = torch.arange(count, device=inputs["signal"].device)
        whole = (patch + 1) * self.patch_samples <= inputs["length"].unsqueeze(1)
        within = whole | ((patch == 0) & (inputs["length"] > 0).unsqueeze(1))
        named = inputs["channels"] > 0
        return (named.unsqueeze(2) & within.unsqueeze(1)).flatten(1)

    def positions(self, inputs: Inputs) -> Tensor:
        """(n, N, D) name of the channel + time of the patch."""
        inputs = _as_dict(inputs)
        time = self.time[: self._count(inputs["signal"])]
        electrode, against, bipolar = _electrodes(inputs["channels"])
        name = self.name(electrode) - self.name(against) * bipolar
        return (name.unsqueeze(2) + time).flatten(1, 2)

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes a dict of signal, channels and length; see `Encoder.forward`."""
        place, mask = self.positions(inputs), self.token_mask(inputs)
        if keep is not None:
            place, mask = gather_tokens(place, keep), kept_mask(mask, keep)

        # What the patch shows: its course, and its power at each frequency and in each band.
        # Zero where nothing is real, so that no weight's gradient can be 0 * NaN.
        raw = torch.where(mask.unsqueeze(-1), self._raw(_as_dict(inputs), keep), 0.0)
        power = self._power(raw)
        bands = self._bands(power)
        tokens = self.embed_raw(raw) + self.embed_power(torch.cat([log_power(power), bands], dim=-1)) + place

        # Channels and times see each other.
        tokens, outputs = self.transformer.with_layers(tokens, mask, layers)

        # Where over the scalp power is, and what the transformer makes of it.
        scalp = self._map(bands, self._token_filters(_as_dict(inputs), keep), mask)
        context = self.context(self._pool(tokens, mask))
        return Encoded(tokens, mask, torch.cat([scalp.to(context.dtype), context], dim=1), outputs)

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs:
        """A window of whole patches in time of all channels, a share of each recording's own length; see `Encoder.crop`."""
        inputs = _as_dict(inputs)
        length = inputs["length"]
        window = (share * (length // self.patch_samples)).round().long().clamp(min=1) * self.patch_samples
        start = (place[:, 0] * ((length - window).clamp(min=0) + 1)).long()
        signal = crop_rows(inputs["signal"], start, int(window.max()) if len(window) else self.patch_samples)
        return {**inputs, "signal": signal, "length": torch.minimum(length, window)}

    def _map(self, bands: Tensor, filters: Tensor, mask: Tensor) -> Tensor:
        """(n, K * bands) from log band powers (n, N, bands) and the tokens' filters (n, N, K)."""
        mean = masked_mean(bands, mask)
        deviation = torch.where(mask.unsqueeze(-1), bands - mean.unsqueeze(1), 0.0)
        count = mask.sum(1).clamp(min=1).view(-1, 1, 1)
        maps = einsum(filters, deviation, "n t k, n t b -> n k b") / count
        return (maps + F.pad(mean.unsqueeze(1), (0, 0, 0, maps.shape[1] - 1))).flatten(1)

    def _token_filters(self, inputs: dict[str, Tensor], keep: Tensor | None) -> Tensor:
        """(n, N, K) weights of each token's channel in the spatial filters, or (n, K', K) of those kept."""
        electrode, against, bipolar = _electrodes(inputs["channels"])
        filters = self.filters(electrode)
        filters = torch.where(bipolar, (filters + self.filters(against)) / 2, filters)
        filters = filters.unsqueeze(2).expand(-1, -1, self._count(inputs["signal"]), -1).flatten(1, 2)
        return filters if keep is None else gather_tokens(filters, keep)

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.score is None:
            return masked_mean(tokens, mask)
        logits = self.score(tokens).float().masked_fill(~mask.unsqueeze(-1), torch.finfo(torch.float32).min)
        weights = logits.softmax(1) * mask.unsqueeze(-1)
        return (weights * tokens).sum(1)

    def _count(self, signal: Tensor) -> int:
        """Patches along time."""
        count = signal.shape[-1] // self.patch_samples
        if not 1 <= count <= self.max_patches:
            raise ValueError(
                f"an EEG of {signal.shape[-1]} samples is {count} patches of {self.patch_samples}; between 1 and "
                f"{self.max_patches} are accepted; fix: the transform's window_s, or the encoder's max_patches"
            )
        return count

    def _raw(self, inputs: dict[str, Tensor], keep: Tensor | None) -> Tensor:
        """(n, N, patch_samples) raw patches in float32 or better, or (n, K, patch_samples)."""
        signal = inputs["signal"]
        count = self._count(signal)
        patches = signal[..., : count * self.patch_samples].unflatten(-1, (count, self.patch_samples)).flatten(1, 2)
        kept = patches if keep is None else gather_tokens(patches, keep)
        return kept.to(torch.promote_types(kept.dtype, torch.float32))

    def _power(self, raw: Tensor) -> Tensor:
        """(..., P // 2 + 1) periodogram in (100 uV)^2: white noise of variance v gives v on average."""
        with torch.autocast(raw.device.type, enabled=False):
            return torch.fft.rfft(raw * self.window).abs().square() / self.window.square().sum()

    def _bands(self, power: Tensor) -> Tensor:
        """(..., bands) log power of each band, in float32 also under autocast."""
        with torch.autocast(power.device.type, enabled=False):
            return log_power(power @ self.bands.T)


def log_power(power: Tensor) -> Tensor:
    """Logarithm of power above the floor, of the order of 1: EEG of 10 uV in a bin gives about 0."""
    return 0.5 * ((power + POWER_FLOOR).log() - 2.0 * torch.log(torch.tensor(0.1)).item())


def band_matrix(patch_samples: int, sfreq: float) -> Tensor:
    """(bands, bins) averages the periodogram's bins over each of `BANDS` that holds at least one."""
    frequency = torch.fft.rfftfreq(patch_samples, 1.0 / sfreq)
    rows = [(frequency >= low) & (frequency < high) for low, high in BANDS]
    return torch.stack([F.normalize(row.float(), p=1, dim=0) for row in rows if bool(row.any())])


def _as_dict(inputs: Inputs) -> dict[str, Tensor]:
    if not isinstance(inputs, dict) or not {"signal", "channels", "length"} <= set(inputs):
        got = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
        raise ValueError(f"EEGTransformer received {got}, expected a dict of signal, channels and length")
    return inputs


def _filter_count(filters: int | None, dim: int, bands: int) -> int:
    """K, of which K * bands features fit beside at least one of the transformer."""
    count = min(PATTERNS, 3 * dim // (4 * bands)) if filters is None else filters
    if not 1 <= count <= PATTERNS or count * bands >= dim:
        raise ValueError(
            f"dim {dim} with {count} spatial filters of {bands} bands each; fix: dim above {max(count, 1) * bands}, or "
            f"filters of 1 to {PATTERNS}"
        )
    return count


def _vocabulary(count: int) -> tuple[str, ...]:
    """`count` channel names, those beyond the known ones without a place on the scalp."""
    return CHANNELS[:count] + ("",) * (count - len(CHANNELS))


def _electrodes(channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, C) the electrode, (n, C) the one that it is against, (n, C, 1) bool whether there is such a one."""
    against = channels // AGAINST
    return channels % AGAINST, against, (against > 0).unsqueeze(-1)
