"""Train the network that classifies chips, and write its weights: `python -m controller.workloads.train_classifier`.

Everything is drawn from one seed. Adam (D. Kingma and J. Ba, ICLR 2015) on the cross-entropy, in float64, then scaled
by powers of two into 8-bit integers. Floats differ in their last bits from one machine to the next, so training again
elsewhere gives other weights of the same worth; those in the repository are the ones whose answers are known.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from controller.workloads.scripts.capture_chips import CLASSES, chips
from controller.workloads.scripts.classify_chips import CENTRE, Layer, Network, classify, load, windows

WEIGHTS = Path(__file__).parent / "scripts" / "chip_classifier.json"
SEED, HELD_OUT_SEED = 1, 2
TRAINING_CHIPS, HELD_OUT_CHIPS = 8000, 2000
FILTERS = (8, 12)
BATCH_CHIPS = 64
EPOCHS = 20
RATE = 2e-3
INPUT_BITS = 5  # the network sees steps of the chips in units of 2⁵

Parameters = list[np.ndarray]


def fresh(random: np.random.Generator) -> Parameters:
    """Weights and biases in turn, as K. He et al. draw them (Proc. ICCV 2015)."""
    shapes = ((9, FILTERS[0]), (9 * FILTERS[0], FILTERS[1]), (16 * FILTERS[1], len(CLASSES)))
    pairs = [(random.normal(0, math.sqrt(2 / n_in), (n_in, n_out)), np.zeros(n_out)) for n_in, n_out in shapes]
    return [each for pair in pairs for each in pair]


class Step:
    """One batch through the network and back."""

    def __init__(self, parameters: Parameters, x: np.ndarray) -> None:
        """Shapes: x (n, 24, 24) → logits (n, class)."""
        self._parameters, self._tape = parameters, []
        x = x[:, None]
        self.peaks = []  # of the activations, which the integers must hold
        for layer in (0, 1):
            seen = windows(x)
            sums = seen @ parameters[2 * layer] + parameters[2 * layer + 1]
            lit = np.maximum(sums, 0).transpose(0, 3, 1, 2)
            n, c, h, w = lit.shape
            cells = lit[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
            cells = cells.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
            largest = cells.argmax(axis=-1)
            self._tape.append((x.shape, seen, lit, largest))
            x = np.take_along_axis(cells, largest[..., None], axis=-1)[..., 0]
            self.peaks.append(float(x.max()))
        self._flat = x.reshape(len(x), -1)
        self.logits = self._flat @ parameters[4] + parameters[5]

    def gradients(self, labels: np.ndarray) -> Parameters:
        """Of the mean cross-entropy, by the parameters."""
        odds = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        slope = odds / odds.sum(axis=1, keepdims=True)
        slope[np.arange(len(labels)), labels] -= 1
        slope /= len(labels)
        found = [self._flat.T @ slope, slope.sum(axis=0)]
        back = (slope @ self._parameters[4].T).reshape(self._tape[1][3].shape)
        for layer in (1, 0):
            shape, seen, lit, largest = self._tape[layer]
            n, c, h, w = lit.shape
            cells = np.zeros((*largest.shape, 4))
            np.put_along_axis(cells, largest[..., None], back[..., None], axis=-1)
            cells = cells.reshape(n, c, h // 2, w // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5)
            sums = np.zeros(lit.shape)
            sums[:, :, : h // 2 * 2, : w // 2 * 2] = cells.reshape(n, c, h // 2 * 2, w // 2 * 2)
            sums = (sums * (lit > 0)).transpose(0, 2, 3, 1)
            found[:0] = [np.einsum("nhwk,nhwo->ko", seen, sums, optimize=True), sums.sum(axis=(0, 1, 2))]
            if layer:
                spread = (sums @ self._parameters[2 * layer].T).reshape(n, h, w, shape[1], 3, 3)
                back = np.zeros(shape)
                for down in range(3):
                    for right in range(3):
                        back[:, :, down : down + h, right : right + w] += spread[..., down, right].transpose(0, 3, 1, 2)
        return found


def trained(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> Parameters:
    """The parameters after so many times through all chips."""
    random = np.random.default_rng(seed)
    parameters = fresh(random)
    first, second = ([np.zeros_like(each) for each in parameters] for _ in range(2))
    x, steps = seen_by_network(images), 0
    total = epochs * (len(x) // BATCH_CHIPS)
    for _ in range(epochs):
        order = random.permutation(len(x))
        for start in range(0, len(x) - BATCH_CHIPS + 1, BATCH_CHIPS):
            batch = order[start : start + BATCH_CHIPS]
            rate = RATE * 0.5 * (1 + math.cos(math.pi * steps / total))
            steps += 1
            slopes = Step(parameters, x[batch]).gradients(labels[batch])
            for p, slope, m, v in zip(parameters, slopes, first, second, strict=True):
                m += 0.1 * (slope - m)
                v += 0.001 * (slope**2 - v)
                p -= rate * (m / (1 - 0.9**steps)) / (np.sqrt(v / (1 - 0.999**steps)) + 1e-8)
    return parameters


def seen_by_network(images: np.ndarray) -> np.ndarray:
    """Chips as floats around 0."""
    seen: np.ndarray = (images.astype(np.float64) - CENTRE) / 2**INPUT_BITS
    return seen


def quantised(parameters: Parameters, images: np.ndarray) -> Network:
    """The network in 8-bit integers: each scale the power of two that just holds what occurs on the chips."""
    peaks = Step(parameters, seen_by_network(images)).peaks
    layers, n_in, bits_in = [], 1, INPUT_BITS
    for layer, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        bits = math.floor(math.log2(127 / np.abs(weight).max()))
        bits_out = math.floor(math.log2(127 / peaks[layer])) if layer < len(peaks) else 0
        whole = np.rint(weight * 2**bits).astype(np.int8).T
        whole = whole.reshape(-1, n_in, 3, 3) if layer < len(peaks) else whole
        shift = bits_in + bits - bits_out if layer < len(peaks) else 0
        layers.append(Layer(whole, np.rint(bias * 2 ** (bits_in + bits)).astype(np.int32), shift))
        n_in, bits_in = len(whole), bits_out
    return Network(CLASSES, (layers[0], layers[1], layers[2]))


def accuracy_ratio(network: Network, seed: int = HELD_OUT_SEED, count: int = HELD_OUT_CHIPS) -> float:
    """How many of the chips of a seed the network names rightly."""
    images, labels = chips(seed, count)
    return float((classify(network, images) == labels).mean())


def written(network: Network) -> str:
    """The network as a file, which `load` reads."""
    layers = [
        {"weight": layer.weight.tolist(), "bias": layer.bias.tolist(), "shift": layer.shift} for layer in network.layers
    ]
    return json.dumps({"classes": network.classes, "layers": layers}, separators=(",", ":")) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Train, say how good it is on chips it has not seen, and write the weights."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args(arguments)
    images, labels = chips(SEED, TRAINING_CHIPS)
    parameters = trained(images, labels, asked.epochs, SEED)
    network = quantised(parameters, images[:1000])
    held_out, held_out_labels = chips(HELD_OUT_SEED, HELD_OUT_CHIPS)
    as_floats = Step(parameters, seen_by_network(held_out)).logits.argmax(axis=1)
    asked.out.write_text(written(network))
    sys.stdout.write(
        f"on {HELD_OUT_CHIPS} chips it has not seen: {(as_floats == held_out_labels).mean():.2%} in float64, "
        f"{accuracy_ratio(load(asked.out.read_text())):.2%} in 8-bit integers\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
