"""What someone who knows pyFAI writes by hand; the yardstick of speed.py.

One loop: read a frame, integrate it with the fastest method that pyFAI offers on one core
(``("bbox", "csc", "cython")``), and for a map interpolate it to the model's grid, scale it and run
the network on it; or also integrate it without outliers by ``sigma_clip_ng``. No bookkeeping, no
bad frames, no resuming.

Run: ``python benchmarks/script_loop.py FILES… --poni P --mask M --bins LOW HIGH N -o OUT.npz``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import fabio
import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import numpy as np
import pyFAI


def frames(files: list[str]) -> Iterator[np.ndarray]:
    for file in files:
        if file.endswith(".h5"):
            with h5py.File(file) as master:
                for data in master["entry/data"].values():
                    for place in range(data.shape[0]):
                        yield data[place]
        else:
            yield fabio.open(file).data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--poni", required=True)
    parser.add_argument("--mask", required=True)
    parser.add_argument("--bins", nargs=3, required=True, metavar=("LOW", "HIGH", "N"))
    parser.add_argument("--algorithm", default="csc", choices=["csc", "csr"])
    parser.add_argument(
        "--clip", choices=["bbox", "no"], help="also sigma_clip_ng (csr), with this pixel splitting"
    )
    parser.add_argument("--model", help="model folder: also map, one pattern at a time")
    parser.add_argument("--coverage", help=".npy: covered part of each ring, which models may want")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    low, high, count = float(options.bins[0]), float(options.bins[1]), int(options.bins[2])

    integrator = pyFAI.load(options.poni)
    mask = fabio.open(options.mask).data
    if options.model:
        import torch

        from xrdpipe.channels import build_channels
        from xrdpipe.nn.inference import load_model

        model = load_model(options.model, "cpu")
        grid = model.card.grid.two_theta
        # result.radial is float32, which shifts narrow bins by up to a thousandth.
        centres = low + (high - low) / count * (np.arange(count) + 0.5)
        covered = np.load(options.coverage) if options.coverage else np.ones(count)
        coverage = np.interp(grid, centres, covered)[None]
    shared = {
        "unit": "2th_deg",
        "radial_range": (low, high),
        "error_model": "poisson",
        "polarization_factor": 0.99,
        "mask": mask,
    }
    method = ("bbox", options.algorithm, "cython")
    clipped, intensities, errors, odds = [], [], [], []
    for frame in frames(options.files):
        result = integrator.integrate1d(frame, count, method=method, **shared)
        intensities.append(result.intensity)
        errors.append(result.sigma)
        if options.clip:
            masked = integrator.sigma_clip_ng(
                frame, count, method=(options.clip, "csr", "cython"), **shared
            )
            clipped.append((masked.intensity, masked.sigma, result.intensity - masked.intensity))
        if options.model:
            pattern = np.interp(grid, centres, result.intensity)[None].astype(np.float32)
            # Builds what the model sees: for the paper's network the min-max scaled pattern.
            views = build_channels(model.card.channels, pattern, coverage)
            with torch.inference_mode():
                batch = torch.from_numpy(views)
                members = model.evidence.networks
                odds.append([network.log_odds(batch)[0].numpy() for network in members])
    np.savez(
        options.output,
        two_theta=result.radial,
        intensity=np.array(intensities),
        errors=np.array(errors),
        clipped=np.array(clipped),
        log_odds=np.array(odds, np.float64),
    )


if __name__ == "__main__":
    main()
