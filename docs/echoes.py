"""Write a synthetic sample like a rain radar's, where all echoes move in a smooth flow and change slowly on their way.

    python docs/echoes.py echoes.nc --seed 1

Each event is 40 frames of ten minutes on 64 x 64 cells, in a flow of its own and with a texture of its own, some hours after the
event before. docs/moving.md measures models with moving Gaussians on it, beside controls without. The file says that nothing
in it was observed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import map_coordinates

CELLS, FRAMES, STEP_MINUTES, PERIOD = 64, 40, 10, 128  # PERIOD: cells after which flow and texture repeat
SPEED = 1.5  # cells a frame, of the mean flow
GROWTH = 60  # frames in which an echo comes and goes


def texture(rng: np.random.Generator) -> np.ndarray:
    """A random field [PERIOD, PERIOD] of mean 0 and sd 1 whose amplitudes fall with the power -1.8 of the wave number."""
    y, x = np.meshgrid(np.fft.fftfreq(PERIOD), np.fft.fftfreq(PERIOD), indexing="ij")
    wave = np.hypot(y, x)
    amplitude = np.where(wave > 0, np.maximum(wave, 1 / PERIOD) ** -1.8, 0)
    field = np.fft.ifft2(amplitude * np.fft.fft2(rng.standard_normal((PERIOD, PERIOD)))).real
    return field / field.std()


def flow(place: np.ndarray, mean: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Cells a frame [2, H, W], rows first, at `place`: a mean and four waves of a stream function, without divergence."""
    out = np.broadcast_to(mean[:, None, None], place.shape).copy()
    for (k, m), phase in zip(((1, 0), (0, 1), (1, 1), (1, -1)), phases, strict=True):
        slope = 0.2 * SPEED * np.cos(2 * np.pi * (k * place[0] + m * place[1]) / PERIOD + phase)
        out += np.stack([m * slope, -k * slope])
    return out


def event(rng: np.random.Generator) -> np.ndarray:
    """Rain [FRAMES, CELLS, CELLS], mm/h: two textures that are carried along and take turns."""
    textures = [texture(rng), texture(rng)]
    angle, start, phases = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, 4)
    mean = SPEED * np.array([np.sin(angle), np.cos(angle)])
    place = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij")).astype(float)
    frames = []
    for frame in range(FRAMES):
        turn = start + 2 * np.pi * frame / GROWTH
        values = [map_coordinates(t, place, order=3, mode="grid-wrap") for t in textures]
        frames.append(6 * np.clip(np.cos(turn) * values[0] + np.sin(turn) * values[1] - 0.2, 0, None) ** 1.3)
        # The flow does not change, so that where an echo was before is found step by step, by the midpoint rule.
        half = place - 0.5 * flow(place, mean, phases)
        place = place - flow(half, mean, phases)
    return np.stack(frames)


def sample(seed: int, events: int) -> xr.Dataset:
    """All events one after the other, each two hours after the end of the one before."""
    rng = np.random.default_rng(seed)
    rain = np.concatenate([event(rng) for _ in range(events)]).astype(np.float32)
    minutes = np.concatenate([STEP_MINUTES * (np.arange(FRAMES) + number * (FRAMES + 12)) for number in range(events)])
    axes = {"lat": ("degrees_north", 48.0), "lon": ("degrees_east", 9.0)}
    coords = {name: (name, start + 0.02 * np.arange(CELLS), {"units": units}) for name, (units, start) in axes.items()}
    times = np.datetime64("2024-06-01T00:00", "ns") + minutes.astype("timedelta64[m]")
    attributes = {"units": "mm h-1", "long_name": "rain", "standard_name": "lwe_precipitation_rate"}
    return xr.Dataset(
        {"rain": (("time", "lat", "lon"), rain, attributes)},
        {"time": times, **coords},
        {"title": "synthetic echoes of rain; nothing here was observed", "Conventions": "CF-1.11"},
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="NetCDF file to write")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another sample")
    parser.add_argument("--events", type=int, default=60, help="of 40 frames each")
    options = parser.parse_args()
    sample(options.seed, options.events).to_netcdf(options.output)


if __name__ == "__main__":
    main()
