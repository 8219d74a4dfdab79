"""Say what each chip of a radar image shows, by a small convolutional network, and leave `classes.json`.

Inputs: the chips, and the network's weights (`chip_classifier.json`). Two layers of 3 × 3 filters, each followed by a
rectifier and the largest of 2 × 2, then one dense layer. Weights and activations are 8-bit integers, sums 32-bit ones,
scales powers of two (after B. Jacob et al., "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", Proc. CVPR 2018), so the answer is the same on every machine.
"""

import hashlib
import json
import os
from dataclasses import dataclass

import numpy as np

CENTRE = 96  # of a chip's steps; what the network sees is the difference
BATCH_CHIPS = 64  # memory stays small, as on a satellite


@dataclass(frozen=True)
class Layer:
    """Integer weights, and how far sums are shifted to be activations again. Shapes: (out, in, 3, 3) or (out, in)."""

    weight: np.ndarray
    bias: np.ndarray
    shift: int


@dataclass(frozen=True)
class Network:
    """The quantised network."""

    classes: tuple[str, ...]
    layers: tuple[Layer, Layer, Layer]


def load(text: str) -> Network:
    """The network of a file."""
    document = json.loads(text)
    layers = [
        Layer(np.array(layer["weight"], np.int8), np.array(layer["bias"], np.int32), layer["shift"])
        for layer in document["layers"]
    ]
    return Network(tuple(document["classes"]), (layers[0], layers[1], layers[2]))


def windows(x: np.ndarray) -> np.ndarray:
    """Every 3 × 3 window, as rows. Shapes: (n, c, h, w) → (n, h − 2, w − 2, 9·c), the channel first."""
    seen = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    n, c, h, w = seen.shape[:4]
    rows: np.ndarray = seen.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, 9 * c)
    return rows


def pooled(x: np.ndarray) -> np.ndarray:
    """The largest of each 2 × 2; an odd edge is left out. Shapes: (n, c, h, w) → (n, c, h // 2, w // 2)."""
    n, c, h, w = x.shape
    largest: np.ndarray = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
    return largest


def activation(sums: np.ndarray, shift: int) -> np.ndarray:
    """Sums scaled down, rounded half up, rectified and kept below 128."""
    scaled: np.ndarray = np.clip((sums + (1 << shift >> 1)) >> shift, 0, 127)
    return scaled


def convolved(layer: Layer, x: np.ndarray) -> np.ndarray:
    """One layer of filters with rectifier and pooling. Shapes: (n, in, h, w) → (n, out, (h − 2) // 2, (w − 2) // 2)."""
    sums = windows(x) @ layer.weight.reshape(len(layer.weight), -1).T.astype(np.int32) + layer.bias
    return pooled(activation(sums, layer.shift).transpose(0, 3, 1, 2))


def classify(network: Network, chips: np.ndarray) -> np.ndarray:
    """The number of each chip's class. Shapes: (n, 24, 24), uint8 → (n,)."""
    first, second, dense = network.layers
    answers = [np.empty(0, np.int64)]
    for start in range(0, len(chips), BATCH_CHIPS):
        batch = chips[start : start + BATCH_CHIPS, None].astype(np.int32)
        x = convolved(second, convolved(first, np.clip(batch - CENTRE, -128, 127)))
        answers.append((x.reshape(len(x), -1) @ dense.weight.T.astype(np.int32) + dense.bias).argmax(axis=1))
    return np.concatenate(answers)


def answer(network: Network, numbers: np.ndarray) -> dict[str, object]:
    """What is told of chips: how many of each class there are, and a digest of all the answers in turn."""
    counts = {name: int((numbers == number).sum()) for number, name in enumerate(network.classes)}
    return {
        "chips": len(numbers),
        "counts": counts,
        "sha256": hashlib.sha256(numbers.astype(np.uint8).tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    chips_file, weights_file = os.environ["SKYRACK_INPUTS"].split(os.pathsep)
    with open(weights_file) as file:
        net = load(file.read())
    found = classify(net, np.load(chips_file))
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "classes.json"), "w") as file:
        json.dump({**answer(net, found), "classes": "".join(str(number) for number in found)}, file)
    print(json.dumps(answer(net, found)))
