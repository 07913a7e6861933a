"""What does it gain to run the frozen base once instead of once per epoch?

    python benchmarks/feature_cache.py IMAGES --weights FILE [--count 256]

Times one epoch of the frozen stage with the whole network, and the features once plus one epoch on them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from lesion_edge.images import find_images
from lesion_edge.preprocess import load_pixels


def main() -> None:
    """Print seconds, and the ratio for some numbers of epochs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--count", type=int, default=256)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from lesion_train.features import predict_batches
    from lesion_train.model import build_model, feature_extractor, freeze_base, submodel_after
    from lesion_train.paper import PaperConfig, compile_model

    config = PaperConfig()
    files = itertools.islice(find_images([str(arguments.images)]), arguments.count)
    pixels = np.stack([load_pixels(file, 180) for file in files]).astype(np.float32)
    labels = np.arange(len(pixels)) % 2
    model = build_model(180, 2, arguments.weights, config.hidden_units)
    freeze_base(model)
    whole, head = (
        compile_model(part, config.learning_rate) for part in (model, submodel_after(model, after="avg_pool"))
    )
    extractor = feature_extractor(model, ["avg_pool"])

    def seconds(model: Any, inputs: Any) -> float:
        start = time.perf_counter()
        model.fit(inputs, labels, batch_size=config.batch_size, verbose=0)
        return time.perf_counter() - start

    few = pixels[: config.batch_size]
    whole.fit(few, labels[: config.batch_size], verbose=0)
    head.fit(predict_batches(extractor, few), labels[: config.batch_size], verbose=0)
    epoch = seconds(whole, pixels)
    start = time.perf_counter()
    features = predict_batches(extractor, pixels)
    once = time.perf_counter() - start
    cached = seconds(head, features)
    print(f"{len(pixels)} images: whole epoch {epoch:.1f} s; features {once:.1f} s, epoch on them {cached:.2f} s")
    for epochs in (2, 3, 10):
        print(f"{epochs} epochs: {epochs * epoch / (once + epochs * cached):.1f} times as fast")


if __name__ == "__main__":
    main()
