"""Fingerprints: copies are near, other files are far, whatever format, size or rate they were written in."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, signal

from medssml.checks.fingerprints import (
    BITS,
    block_means,
    fingerprint,
    frequencies,
    nearest_copies,
    rhythm,
    sign_codes,
    word_runs,
)
from medssml.checks.limits import Limits
from medssml.readers import parse_report

LIMITS = Limits()


def differing(first, second):
    return int(((first > 0) != (second > 0)).sum())


def scene(seed, shape):
    """Smooth shapes, as bodies are: noise whose energy falls with frequency."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = sum(2**k * ndimage.gaussian_filter(noise, 2**k) for k in range(2, 5))
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def test_a_copy_of_an_image_is_near_and_another_is_far():
    image = scene(0, (300, 260))
    code = frequencies(image, (16, 16))
    picture = Image.fromarray((image * 255).astype(np.uint8))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=40)
    copies = {
        "jpeg": np.asarray(Image.open(stream), np.float32),
        "small": np.asarray(picture.resize((120, 140), Image.Resampling.LANCZOS)),
        "16 bit": (image * 65535).astype(np.uint16),
        "brighter": 0.2 + 0.5 * image,
    }
    for name, copy in copies.items():
        assert differing(code, frequencies(copy, (16, 16))) <= LIMITS.xray_near_bits, name
    others = [differing(code, frequencies(scene(seed, (300, 260)), (16, 16))) for seed in range(1, 20)]
    assert min(others) > 2 * LIMITS.xray_near_bits


def test_a_copy_of_a_volume_is_near_and_another_is_far():
    volume = scene(0, (64, 60, 40)) * 1400 - 1000
    code = frequencies(volume, (8, 8, 4))
    noisy = volume + np.random.default_rng(1).normal(0, 20, volume.shape)
    for copy in (noisy, np.round(volume), ndimage.zoom(volume, 0.8, order=1)):
        assert differing(code, frequencies(copy, (8, 8, 4))) <= LIMITS.ct_near_bits
    assert differing(code, frequencies(scene(5, (64, 60, 40)), (8, 8, 4))) > 2 * LIMITS.ct_near_bits


def test_a_constant_has_no_fingerprint():
    assert frequencies(np.full((20, 20), 3.0), (16, 16)) is None


def test_means_of_blocks_are_means():
    array = np.arange(24.0).reshape(4, 6)
    np.testing.assert_allclose(block_means(array, (2, 3)), array.reshape(2, 2, 3, 2).mean(axis=(1, 3)))
    assert block_means(array, (8, 6))[0].tolist() == array[0].tolist()  # a short axis repeats
    uneven = block_means(np.arange(10.0), (3,))
    np.testing.assert_allclose(uneven, [1.0, 4.0, 7.5])


def recording(seed, seconds=60, sfreq=256):
    """Bursts of noise of their own, in eight channels."""
    rng = np.random.default_rng(seed)
    bursts = np.repeat(np.exp(rng.normal(0, 0.5, seconds * 4)), sfreq // 4)
    return (10 * bursts * rng.normal(size=(8, seconds * sfreq))).astype(np.float32)


def test_a_copy_of_a_recording_is_near_and_another_is_far():
    eeg = recording(0)
    code = rhythm(eeg, 256)
    copies = {
        "half the rate": rhythm(signal.resample_poly(eeg, 1, 2, axis=1), 128),
        "millivolt": rhythm(eeg / 2, 256),
        "longer": rhythm(np.concatenate([eeg, eeg], axis=1)[:, : 62 * 256], 256),
    }
    for name, copy in copies.items():
        assert differing(code, copy) <= LIMITS.eeg_near_bits, name
    assert min(differing(code, rhythm(recording(s), 256)) for s in range(1, 20)) > 2 * LIMITS.eeg_near_bits
    assert rhythm(eeg[:, : 5 * 256], 256) is None


def test_a_report_keeps_its_fingerprint_under_another_layout_but_not_under_other_words():
    text = "FINDINGS: " + " ".join(f"word{n}" for n in range(120))
    code = word_runs(text)
    np.testing.assert_array_equal(word_runs(text.upper().replace(" ", "\n")), code)
    assert differing(code, word_runs(text.replace("word60", "new"))) <= LIMITS.report_near_bits
    other = "FINDINGS: " + " ".join(f"other{n}" for n in range(120))
    assert differing(code, word_runs(other)) > 3 * LIMITS.report_near_bits
    assert fingerprint("report", parse_report("No acute findings.")) is None  # nothing to tell it by


@pytest.mark.parametrize("rows", [4, 1024])
def test_the_nearest_copy_is_of_another_subject_and_rather_of_another_split(rows, monkeypatch):
    monkeypatch.setattr("medssml.checks.fingerprints._ROWS", rows)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (40, BITS), dtype=np.uint8)
    bits[30] = bits[3]  # the same split, nearer
    bits[31] = bits[3] ^ np.eye(1, BITS, 7, dtype=np.uint8)[0]  # another split
    bits[35] = bits[12]  # the same subject
    codes = sign_codes(bits.astype(np.float16))[:1]
    subjects, splits = np.arange(40), np.zeros(40, np.int64)
    subjects[35], splits[31] = subjects[12], 1
    assert list(nearest_copies(codes, 4, subjects, splits)) == [(30, 3, 0), (31, 3, 1)]
    splits[3] = 1  # now 30, and no more 31, is a leak
    assert list(nearest_copies(codes, 4, subjects, splits)) == [(30, 3, 0), (31, 30, 1)]


def test_what_all_images_share_makes_no_copies_of_them():
    """Forty chests: one anatomy, and a little of their own; and a copy of one of them."""
    shared = 3 * scene(0, (200, 200))
    chests = [shared + scene(seed, (200, 200)) for seed in range(1, 41)]
    copy = 0.5 * ndimage.gaussian_filter(chests[7], 1) + 0.1
    features = np.stack([frequencies(image, (16, 16)) for image in [*chests, copy]])
    subjects, splits = np.arange(41), np.zeros(41, np.int64)
    plain = list(nearest_copies(sign_codes(features)[:1], LIMITS.xray_near_bits, subjects, splits))
    assert len(plain) > 3  # signs alone take them for each other
    found = list(nearest_copies(sign_codes(features), LIMITS.xray_near_bits, subjects, splits))
    assert [pair[:2] for pair in found] == [(40, 7)]
