"""What a check calls odd, what one file may cost, and how much may be lost: defaults, and a file that changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from medssml.config import ConfigError, load_config
from medssml.manifest.quarantine import Allowance


@dataclass(frozen=True)
class Limits:
    """Ranges are (least, greatest); what lies outside is flagged.

    Args:
        ct_spacing_mm: voxel spacing, each axis.
        ct_field_mm: field of view, each axis; a crop of a nodule lies below.
        xray_pixels: height and width.
        eeg_sfreq_hz: sampling rate.
        eeg_seconds: length of a recording.
        report_chars: length of a report.
        ct_air_share: of a whole body part, share of the voxels below -300 HU.
        ct_tissue_share: as above, from -300 to 300 HU.
        ct_bone_share: share of the voxels above 300 HU; of crops, too.
        ct_step_hu: of a whole body part, median step in HU between values that occur in soft tissue; an 8-bit picture brought to
            HU has 5 or more.
        xray_black_share: share of the pixels at the least gray of the picture.
        xray_white_share: as above, at the greatest.
        xray_edge_share: share of the pixels of the outermost rows and columns that have one gray, brighter than black: padding
            that the file does not declare, or an inverted picture.
        xray_entropy_bits: bits of the histogram of 256 grays.
        eeg_held_share: share of the samples that stand at the greatest or least value of their channel, three in a row: the
            limits of the converter.
        eeg_still_share: share of the samples that do not differ from the one before, of the worst channel.
        report_letters_share: letters among the characters that are no blanks.
        report_word_chars: letters of the longest word.
        report_headings_lost: headings of findings, impression, indication, technique or comparison of which no section came.
        file_seconds: s that one file may take; more quarantines it.
        file_memory_gib: GiB that reading one file may take (Linux).
        file_declared_gib: GiB that a header may declare, 2 at most, as in training; checked before anything is allocated.
        ct_near_bits: of the 256 signs of `medssml.checks.fingerprints`, in how many two volumes of the same content may differ;
            docs/check.md has what was measured.
        xray_near_bits: as above, of radiographs.
        eeg_near_bits: as above, of recordings.
        report_near_bits: as above, of reports.
        report_copy_words: shorter reports that are the same in two subjects are called templates, not copies.
        drift: |Cliff's delta| between one source and the others from which a difference is listed; 0.474 is "large"
            (Romano et al. 2006), 1 is no overlap at all.
        drift_files: files that a source must have to be compared.
        quarantined_share: share of the rows that may be quarantined.
        quarantined_rows: rows that may be quarantined where that share allows fewer.
        quarantined_most: share of the rows that `quarantined_rows` may amount to in a small table.
    """

    ct_spacing_mm: tuple[float, float] = (0.2, 6.0)
    ct_field_mm: tuple[float, float] = (60.0, 2000.0)
    xray_pixels: tuple[float, float] = (64, 8192)
    eeg_sfreq_hz: tuple[float, float] = (64, 20_000)
    eeg_seconds: tuple[float, float] = (4, 7 * 86_400)
    report_chars: tuple[float, float] = (10, 50_000)
    ct_air_share: tuple[float, float] = (0.0, 0.97)
    ct_tissue_share: tuple[float, float] = (0.02, 1.0)
    ct_bone_share: tuple[float, float] = (0.0, 0.5)
    ct_step_hu: tuple[float, float] = (0.0, 4.0)
    xray_black_share: tuple[float, float] = (0.0, 0.7)
    xray_white_share: tuple[float, float] = (0.0, 0.35)
    xray_edge_share: tuple[float, float] = (0.0, 0.6)
    xray_entropy_bits: tuple[float, float] = (3.0, 8.0)
    eeg_held_share: tuple[float, float] = (0.0, 0.05)
    eeg_still_share: tuple[float, float] = (0.0, 0.9)
    report_letters_share: tuple[float, float] = (0.5, 1.0)
    report_word_chars: tuple[float, float] = (0, 60)
    report_headings_lost: tuple[float, float] = (0, 0)
    file_seconds: float = 120.0
    file_memory_gib: float = 8.0
    file_declared_gib: float = 2.0
    ct_near_bits: int = 24
    xray_near_bits: int = 24
    eeg_near_bits: int = 40
    report_near_bits: int = 26
    report_copy_words: int = 60
    drift: float = 0.474
    drift_files: int = 10
    quarantined_share: float = Allowance.share
    quarantined_rows: int = Allowance.rows
    quarantined_most: float = Allowance.most

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                if not 0 <= value[0] <= value[1]:
                    raise ConfigError(f"{field.name} is {list(value)}; fix: write [least, greatest], 0 or more")
            elif not value >= 0:
                raise ConfigError(f"{field.name} is {value}; fix: 0 or more")
        for name in ("file_seconds", "file_memory_gib", "file_declared_gib"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, so no file could be read; fix: more than 0")
        if self.file_declared_gib > 2:
            raise ConfigError(f"file_declared_gib is {self.file_declared_gib}, training stops at 2; fix: 2 or less")

    @property
    def quarantine(self) -> Allowance:
        """How many rows may be quarantined."""
        return Allowance(self.quarantined_share, self.quarantined_rows, self.quarantined_most)


def read_limits(path: Path | None, overrides: Sequence[str] = ()) -> Limits:
    """The limits that a YAML file and `key=value` texts give, the defaults for the others.

    Raises:
        ConfigError: an unknown key or a wrong value, with line, key and the nearest right name.
    """
    return load_config(path, Limits, overrides)
