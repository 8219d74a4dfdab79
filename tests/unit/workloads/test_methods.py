"""The methods that the workloads use, held against what is published of them."""

from __future__ import annotations

import lzma
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.workloads import train_classifier
from controller.workloads.catalogue import MODEL, script
from controller.workloads.scripts import (
    capture_chips,
    capture_pair,
    capture_tile,
    classify_chips,
    compress_tile,
    detect_changes,
    hash_tree,
    multiply_matrices,
)
from tests.searches import examples

WEIGHTS_LIMIT_BYTES = 100_000
SPECKLE_TOLERANCE_RATIO = 0.02
PSNR_TOLERANCE_DB = 0.05
LEARNT_RATIO = 0.5  # of chips named rightly after a short training; 0.25 is chance
KNOWN_ROOT = "c0df5db93d404ebbbe92da13c085c13e6193e1efacdd2025892172fd76511bf9"
HELD_OUT_RIGHT = 1848  # of 2,000

# The test vectors of Certificate Transparency's reference implementation: leaves, and the root over the first n.
CT_LEAVES = tuple(
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
)  # fmt: skip
CT_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


@pytest.mark.parametrize("leaves", range(1, 9))
def test_tree_heads_are_those_of_certificate_transparency(leaves: int) -> None:
    """The root over the first n leaves is that of RFC 6962's (and RFC 9162's) reference test data."""
    hashes = [hash_tree.leaf_hash(leaf) for leaf in CT_LEAVES[:leaves]]
    assert hash_tree.root(hashes).hex() == CT_ROOTS[leaves - 1]


def test_the_seeded_stream_is_numpys_for_ever() -> None:
    """The root of a seed's first mebibyte is this one, with whichever NumPy and on whichever machine."""
    assert hash_tree.tree(1, 1)["root"] == KNOWN_ROOT


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=examples(150), deadline=None)
def test_the_wavelet_is_undone_exactly(rows: int, columns: int, seed: int, near: int) -> None:
    """Any tile of any shape comes back, off by no more than was allowed."""
    tile = np.random.default_rng(seed).integers(0, 4096, (30 + rows, 30 + columns), dtype=np.uint16)
    decoded = compress_tile.decode(compress_tile.encode(tile, near))
    assert np.abs(decoded.astype(int) - tile).max() <= near


def test_the_wavelet_has_two_vanishing_moments() -> None:
    """Of a straight line the high half is nothing but at the edge, as of every 5/3 filter (T.800, annex F)."""
    _, high = compress_tile.forward(np.arange(0, 300, 3, dtype=np.int32)[:, None])
    assert not high[:-1].any()


@pytest.mark.parametrize("near", [1, 2, 3, 7])
def test_near_lossless_errs_as_a_uniform_quantiser_does(near: int) -> None:
    """PSNR is that of errors spread evenly over −near … near, whose mean square is ((2·near + 1)² − 1) ÷ 12."""
    tile = capture_tile.tile(3, 256)
    psnr_db = compress_tile.report(tile, compress_tile.encode(tile, near))["psnr_db"]
    assert psnr_db == pytest.approx(10 * math.log10(4095**2 * 12 / ((2 * near + 1) ** 2 - 1)), abs=PSNR_TOLERANCE_DB)


def test_less_fidelity_is_fewer_bits_and_lossless_beats_a_general_coder() -> None:
    """A tile's bits a pixel fall with each digital number allowed, and without loss lie below those of plain LZMA."""
    tile = capture_tile.tile(3, 256)
    sizes_bytes = [len(compress_tile.encode(tile, near)) for near in (0, 1, 2, 3)]
    assert sizes_bytes == sorted(sizes_bytes, reverse=True)
    assert sizes_bytes[0] < 0.7 * len(lzma.compress(tile.tobytes()))


@pytest.mark.parametrize(("side_pixels", "seeds"), [(384, range(3)), (511, range(3, 5))])
def test_changes_are_found_from_any_seed(side_pixels: int, seeds: range) -> None:
    """Shift, gain, offset, and every planted change to the pixel; and nothing where nothing has changed."""
    for seed in seeds:
        true, (before, after) = capture_pair.planted(seed, side_pixels), capture_pair.looks(seed, side_pixels)
        told = detect_changes.changes(before, after)
        assert (told["down_pixels"], told["right_pixels"]) == (true.down_pixels, true.right_pixels)
        assert told["gain"] == pytest.approx(true.gain_1024 / 1024, rel=0.005)
        assert told["offset"] == pytest.approx(true.offset, abs=8)
        assert [
            (box["row"], box["column"], box["height"], box["width"], box["pixels"], box["brighter"])
            for box in told["changes"]
        ] == [(row, column, high, wide, high * wide, step > 0) for row, column, high, wide, step in true.boxes]
        assert detect_changes.changes(before, before)["changes"] == []


def test_a_product_is_the_same_by_blas_and_by_whole_numbers() -> None:
    """Float64 is exact for these factors: both ways give the same digest."""
    a, b = multiply_matrices.factors(5, 200)
    assert (a.min(), a.max()) == (-1024, 1023)
    assert multiply_matrices.answer(a.astype(float) @ b.astype(float)) == multiply_matrices.answer(a @ b)


def test_speckle_has_four_looks() -> None:
    """Squared mean over variance of a plain area, the equivalent number of looks, is 4 (Oliver and Quegan)."""
    looks = capture_chips.EXPONENTIAL
    words = np.random.PCG64(9).random_raw(400_000)
    total = sum(looks[(words >> np.uint64(10 * look)).astype(np.int64) & 1023] for look in range(capture_chips.LOOKS))
    intensity = np.asarray(total, np.float64)
    assert intensity.mean() ** 2 / intensity.var() == pytest.approx(4, rel=SPECKLE_TOLERANCE_RATIO)


def test_the_weights_in_the_repository_are_small_and_good() -> None:
    """Below 100 kB, whole numbers alone, and right for just so many of the chips that they were not trained on."""
    text = script(MODEL)
    assert len(text) < WEIGHTS_LIMIT_BYTES
    assert b"." not in text.replace(b'"', b"")
    network = classify_chips.load(text.decode())
    images, labels = capture_chips.chips(train_classifier.HELD_OUT_SEED, train_classifier.HELD_OUT_CHIPS)
    assert (classify_chips.classify(network, images) == labels).sum() == HELD_OUT_RIGHT


def test_training_teaches() -> None:
    """A short training from its seed is far better than chance, and integers lose little of it."""
    images, labels = capture_chips.chips(5, 2000)
    parameters = train_classifier.trained(images, labels, 4, 5)
    network = train_classifier.quantised(parameters, images[:500])
    again = classify_chips.load(train_classifier.written(network))
    held_out, held_out_labels = capture_chips.chips(6, 800)
    logits = train_classifier.Step(parameters, train_classifier.seen_by_network(held_out)).logits
    by_floats = (logits.argmax(axis=1) == held_out_labels).mean()
    by_integers = train_classifier.accuracy_ratio(again, 6, 800)
    assert by_integers > LEARNT_RATIO
    assert by_integers > by_floats - 0.05


def test_gradients_are_those_of_the_loss() -> None:
    """Backpropagation agrees with differences of the loss, for a weight of each layer."""
    images, labels = capture_chips.chips(7, 8)
    x, parameters = train_classifier.seen_by_network(images), train_classifier.fresh(np.random.default_rng(1))

    def loss() -> float:
        logits = train_classifier.Step(parameters, x).logits
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]).mean())

    slopes = train_classifier.Step(parameters, x).gradients(labels)
    for parameter, slope in zip(parameters, slopes, strict=True):
        at = np.unravel_index(np.abs(slope).argmax(), slope.shape)
        there, small = parameter[at], 1e-6
        parameter[at] = there + small
        above = loss()
        parameter[at] = there - small
        below = loss()
        parameter[at] = there
        assert slope[at] == pytest.approx((above - below) / (2 * small), rel=1e-3)
