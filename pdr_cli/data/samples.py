"""Synthetic sample data in the real formats, so that everything can be tried without a download.

No sample was observed. Each moves steadily enough that a forecast can beat copying the last frame, and changes enough
that a mean of the past is not a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from pdr_cli import __version__
from pdr_cli.data.series import Series, make_series
from pdr_cli.errors import UsageError, did_you_mean

# Weather: one year of 6-hourly 2 m temperature on an extratropical window of the usual 2.5 degree grid.
LATITUDES = np.arange(80.0, 0.0, -2.5)  # descending, as reanalyses store them: 32 rows
LONGITUDES = np.arange(200.0, 320.0, 2.5)  # 0..360 style: 48 columns
WEATHER_START = np.datetime64("2013-01-01T00", "ns")
WEATHER_STEPS = 1460  # 365 days of four analyses
WARMEST, COLDEST = 300.0, 262.0  # K, annual means at the equator and the pole
LAPSE_RATE = 6.5  # K per km of height, the standard atmosphere's
MOUNTAINS = 1.0  # km, standard deviation of the relief of land
SEASON_SEA, SEASON_LAND = 4.0, 16.0  # K, amplitude of the annual cycle at 60 degrees: water stores more heat
COLDEST_DAY = 25  # late January
DIURNAL_SEA, DIURNAL_LAND = 0.4, 5.0  # K, amplitude of the daily cycle
WARMEST_HOUR = 14.5  # local solar time
EDDIES = 1400  # in the year; about 35 alive at once, on the grid or west of it
EDDY_KELVIN = (3.0, 10.0)  # peak anomaly, cold or warm
EDDY_DEGREES = (5.0, 9.0)  # radius (1 sigma) in latitude: synoptic, and 2 cells or more
EDDY_STEPS = (24, 56)  # life: 6 to 14 days
JET_LATITUDE, JET_WIDTH = 47.5, 15.0  # degrees
JET_SLOW, JET_FAST = 0.5, 1.4  # cells eastwards a step far from the jet and in it: 6 and 16 m/s at 45 N
NOISE_KELVIN = 0.3  # unpredictable

# Traffic: eight weeks of hourly in- and outflow of a small city, in TaxiBJ's layout.
CITY = 16  # cells a side
TRAFFIC_START = np.datetime64("2024-03-04T00", "ns")  # a Monday
TRAFFIC_DAYS = 56
SLOTS_PER_DAY = 24
MISSING_DAYS = (17, 18, 19)  # TaxiBJ lacks whole days too; windows must not cross them
COMMUTERS = 60.0  # trips per hour and busiest cell at the peak of the rush hour: counts like BikeNYC's and TaxiBJ's
RUSH_HOURS = (8.0, 18.0)  # to work, and home
RUSH_WIDTH = 1.3  # hours, 1 sigma
LEISURE_HOUR, LEISURE_WIDTH = 14.5, 4.0  # hours; most of the weekend's traffic
EVENTS = 110  # two a day: concerts, fairs, a closed road
EVENT_TRIPS = 45.0  # trips per hour at an event's centre
EVENT_HOURS = (6, 14)
EVENT_CELLS_PER_HOUR = 0.7  # a steady pace, which only a model of motion can forecast
DAY_SPREAD = 0.12  # relative, of whole days: rain, holidays

# Video: sixteen seconds of moving shapes before a still background.
FRAME = 64  # pixels a side
VIDEO_FRAMES = 400
FRAMES_PER_SECOND = 25
BACKGROUND_LEVEL, BACKGROUND_CONTRAST = 85.0, 14.0  # of 255
DISCS = 3
DISC_RADIUS = (6.0, 9.0)  # pixels
SPEED = (0.6, 1.4)  # pixels a frame: a ten-frame forecast moves a disc by about its size
BAR_LENGTH, BAR_WIDTH = 24.0, 6.0  # pixels
BAR_TURN = 0.05  # radians a frame, a turn in five seconds
EDGE_PIXELS = 0.8  # softness of outlines, so that motion by a part of a pixel shows


SCENES = "scenes"  # made by `data/scene_samples.py`, because they are not a Series


def make(kind: str, seed: int) -> Series:
    """A synthetic series in memory.

    Args:
        kind: "weather" (2 m temperature, K), "traffic" (in- and outflow, counts) or "video" (gray, 0..255).
        seed: the same seed gives the same numbers.

    Raises:
        UsageError: unknown kind, or a negative seed.
    """
    check(kind, seed, KINDS)
    return KINDS[kind](np.random.default_rng(seed))


def check(kind: str, seed: int, known: Collection[str]) -> None:
    """Refuse a sample that is not among those that are `known`.

    Raises:
        UsageError: unknown kind, or a negative seed.
    """
    if kind not in known:
        raise UsageError(f"no sample {kind!r}.{did_you_mean(kind, known)}", f"one of {', '.join(known)}")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative", "0 or more")


def provenance(kind: str, seed: int) -> dict[str, str]:
    """Global attributes of a sample file; they say that it is synthetic."""
    return {
        **({} if kind == SCENES else {"Conventions": "CF-1.11"}),
        "title": f"Synthetic {kind} sample, not observations (seed {seed})",
        "source": f"pdr {__version__}, synthetic: pdr sample {kind} --seed {seed}",
        "comment": "Made up to try pdr on; scores on it say nothing about real data.",
        "history": f"pdr {__version__}: pdr sample {kind} --seed {seed}",
    }


def weather(rng: np.random.Generator) -> Series:
    """2 m temperature: annual and daily cycles, and eddies that a sheared jet carries eastwards."""
    times = WEATHER_START + np.arange(WEATHER_STEPS) * np.timedelta64(6, "h")
    land, height = _relief(rng)
    kelvin = _climate(land, height)
    _add_eddies(kelvin, rng)
    kelvin += NOISE_KELVIN * rng.standard_normal(kelvin.shape, dtype=np.float32)
    t2m = {
        "standard_name": "air_temperature",
        "long_name": "2 metre temperature (synthetic)",
        "units": "K",
    }
    coords = {
        "latitude": ("y", LATITUDES, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("x", LONGITUDES, {"standard_name": "longitude", "units": "degrees_east"}),
        "height": ((), 2.0, {"standard_name": "height", "units": "m", "positive": "up"}),
    }
    return make_series(kelvin[:, None], times, {"t2m": t2m}, coords, kind="weather", file_attrs=_title("weather"))


def traffic(rng: np.random.Generator) -> Series:
    """In- and outflow: commuters to the centre and back, weekends with less traffic, and moving events."""
    hours = np.arange(TRAFFIC_DAYS * SLOTS_PER_DAY)
    homes, works = _districts(rng)
    rate = _commuting(hours, homes, works)  # [T, 2, H, W]
    rate *= rng.normal(1.0, DAY_SPREAD, TRAFFIC_DAYS).clip(0.5).repeat(SLOTS_PER_DAY)[:, None, None, None]
    _add_events(rate, rng)
    counts = rng.poisson(rate).astype(np.float32)
    kept = ~np.isin(hours // SLOTS_PER_DAY, MISSING_DAYS)
    variables = {
        name: {"units": "count", "long_name": f"{name} per cell and interval (synthetic)"}
        for name in ("inflow", "outflow")
    }
    attrs = {"slots_per_day": SLOTS_PER_DAY, "first_slot": 1} | _title("traffic")
    times = (TRAFFIC_START + hours * np.timedelta64(1, "h"))[kept]
    return make_series(counts[kept], times, variables, {}, kind="traffic", file_attrs=attrs)


def video(rng: np.random.Generator) -> Series:
    """Shaded discs that bounce and a bar that turns, in front of a still, textured background."""
    texture = _smooth_noise(rng, (FRAME, FRAME), 2.0) + _smooth_noise(rng, (FRAME, FRAME), 8.0)
    background = BACKGROUND_LEVEL + BACKGROUND_CONTRAST * texture
    frames = np.repeat(background[None].astype(np.float32), VIDEO_FRAMES, axis=0)
    _paint_bar(frames, rng)
    for level in np.linspace(150.0, 245.0, DISCS):
        _paint_disc(frames, rng, level)
    frames = frames.clip(0, 255).round()[:, None]
    times = np.arange(VIDEO_FRAMES) / FRAMES_PER_SECOND
    gray = {"gray": {"units": "1", "long_name": "gray level, 0 to 255 (synthetic)"}}
    return make_series(frames, times, gray, {}, kind="video", file_attrs=_title("video"))


KINDS: dict[str, Callable[[np.random.Generator], Series]] = {"weather": weather, "traffic": traffic, "video": video}


def _title(kind: str) -> dict[str, str]:
    return {"title": f"Synthetic {kind} sample, not observations"}


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """White noise blurred by a Gaussian of `scale` cells, periodic, mean 0 and standard deviation 1: [H, W]."""
    ky, kx = (np.fft.fftfreq(n)[:, None] if i == 0 else np.fft.fftfreq(n) for i, n in enumerate(shape))
    blur = np.exp(-2 * (np.pi * scale) ** 2 * (ky**2 + kx**2))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * blur).real
    return (field - field.mean()) / field.std()


def _relief(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Share of land, 0..1, and height in km: each [H, W]."""
    shape = (len(LATITUDES), len(LONGITUDES))
    land = 1 / (1 + np.exp(-6 * _smooth_noise(rng, shape, 4.0)))
    height = land * np.maximum(0, MOUNTAINS * (_smooth_noise(rng, shape, 2.0) + 0.5))
    return land, height


def _climate(land: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Temperature without eddies: [T, H, W] float32."""
    day = np.arange(WEATHER_STEPS)[:, None, None] / 4
    latitude = np.deg2rad(LATITUDES)[:, None]
    mean = WARMEST - (WARMEST - COLDEST) * np.sin(latitude) ** 2 - LAPSE_RATE * height
    season = (SEASON_SEA + (SEASON_LAND - SEASON_SEA) * land) * np.sin(latitude) / np.sin(np.pi / 3)
    daily = (DIURNAL_SEA + (DIURNAL_LAND - DIURNAL_SEA) * land) * np.cos(latitude)
    local_hour = 24 * day + LONGITUDES / 15
    cold = np.cos(2 * np.pi * (day - COLDEST_DAY) / 365.25)
    noon = np.cos(2 * np.pi * (local_hour - WARMEST_HOUR) / 24)
    return (mean - season * cold + daily * noon).astype(np.float32)


def jet(latitude: float) -> float:
    """Cells that an eddy at `latitude` moves eastwards in a step."""
    return JET_SLOW + (JET_FAST - JET_SLOW) * float(np.exp(-0.5 * ((latitude - JET_LATITUDE) / JET_WIDTH) ** 2))


def _add_eddies(kelvin: np.ndarray, rng: np.random.Generator) -> None:
    """Add vortices that are born, grow, drift with the jet and decay; they may enter from west of the grid."""
    rows, columns = np.arange(len(LATITUDES), dtype=np.float32)[:, None], np.arange(len(LONGITUDES), dtype=np.float32)
    cell = abs(LATITUDES[1] - LATITUDES[0])
    for _ in range(EDDIES):
        life = int(rng.integers(*EDDY_STEPS))
        birth = int(rng.integers(-life, WEATHER_STEPS))
        row = rng.uniform(2, len(LATITUDES) - 6)  # weaker in the tropics, so none starts in the last rows
        column = rng.uniform(-JET_FAST * EDDY_STEPS[1] / 2, len(LONGITUDES))
        radius = rng.uniform(*EDDY_DEGREES) / cell
        peak = rng.uniform(*EDDY_KELVIN) * rng.choice((-1, 1))
        drift = rng.uniform(-0.1, 0.1)  # rows a step
        speed = jet(float(LATITUDES[int(row)]))
        stretch = rng.uniform(1.0, 1.5)  # eddies are longer than tall
        age = np.arange(max(0, -birth), min(life, WEATHER_STEPS - birth), dtype=np.float32)
        growth = peak * np.sin(np.pi * (age + 0.5) / life)
        tall = np.exp(-0.5 * ((rows - row - drift * age[:, None, None]) / radius) ** 2)
        wide = np.exp(-0.5 * ((columns - column - speed * age[:, None, None]) / (stretch * radius)) ** 2)
        kelvin[birth + age.astype(int)] += growth[:, None, None] * tall * wide


def _districts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Density of homes (a ring) and workplaces (the centre), uneven, each with a maximum of 1: [H, W]."""
    y, x = np.mgrid[:CITY, :CITY] - (CITY - 1) / 2
    radius = np.hypot(y, x) / CITY
    uneven = [np.exp(0.4 * _smooth_noise(rng, (CITY, CITY), 1.2)) for _ in range(2)]
    homes = np.exp(-0.5 * ((radius - 0.3) / 0.13) ** 2) * uneven[0]
    works = np.exp(-0.5 * (radius / 0.14) ** 2) * uneven[1]
    return homes / homes.max(), works / works.max()


def _commuting(hours: np.ndarray, homes: np.ndarray, works: np.ndarray) -> np.ndarray:
    """Mean in- and outflow of an ordinary week: [T, 2, H, W]."""
    clock, weekday = hours % 24, (hours // 24) % 7 < 5
    morning, evening = (np.exp(-0.5 * ((clock - h) / RUSH_WIDTH) ** 2) * np.where(weekday, 1, 0.15) for h in RUSH_HOURS)
    leisure = np.exp(-0.5 * ((clock - LEISURE_HOUR) / LEISURE_WIDTH) ** 2) * np.where(weekday, 0.25, 0.45)
    everywhere = leisure[:, None, None] * (homes + works) + 0.01
    to_work, to_home = morning[:, None, None], evening[:, None, None]
    inflow = to_work * works + to_home * homes + everywhere
    outflow = to_work * homes + to_home * works + everywhere
    return COMMUTERS * np.stack([inflow, outflow], axis=1)


def _add_events(rate: np.ndarray, rng: np.random.Generator) -> None:
    """Add crowds that gather, move across the city and disperse: inflow decreases and outflow increases."""
    y, x = np.mgrid[:CITY, :CITY]
    for _ in range(EVENTS):
        life, start = int(rng.integers(*EVENT_HOURS)), int(rng.integers(TRAFFIC_DAYS)) * 24 + int(rng.integers(7, 14))
        centre, heading = rng.uniform(2, CITY - 2, 2), rng.uniform(0, 2 * np.pi)
        age = np.arange(min(life, len(rate) - start))[:, None, None]
        cy = centre[0] + EVENT_CELLS_PER_HOUR * np.sin(heading) * age
        cx = centre[1] + EVENT_CELLS_PER_HOUR * np.cos(heading) * age
        crowd = (
            EVENT_TRIPS * np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / 1.5**2) * np.sin(np.pi * (age + 0.5) / life)
        )
        leaving = (age + 0.5) / life
        rate[start : start + len(age)] += crowd[:, None] * np.stack([1 - leaving, leaving], axis=1)


def _bounce(position: np.ndarray, margin: float) -> np.ndarray:
    """A straight path, reflected so that it stays `margin` pixels inside the frame."""
    room = FRAME - 1 - 2 * margin
    return margin + room - np.abs((position - margin) % (2 * room) - room)


def _path(rng: np.random.Generator, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Steady motion that bounces off the frame: x and y, each [T, 1, 1]."""
    speed, heading = rng.uniform(*SPEED), rng.uniform(0, 2 * np.pi)
    start = rng.uniform(margin, FRAME - margin, 2)
    age = np.arange(VIDEO_FRAMES)[:, None, None]
    x, y = (s + speed * f(heading) * age for s, f in zip(start, (np.cos, np.sin), strict=True))
    return _bounce(x, margin), _bounce(y, margin)


def _cover(frames: np.ndarray, inside: np.ndarray, level: np.ndarray | float) -> None:
    """Paint `level` where the distance `inside` the outline, in pixels, is positive."""
    alpha = 1 / (1 + np.exp(-(inside / EDGE_PIXELS).clip(-30, 30)))
    frames += alpha * (level - frames)


def _paint_disc(frames: np.ndarray, rng: np.random.Generator, level: float) -> None:
    y, x = np.mgrid[:FRAME, :FRAME]
    radius = rng.uniform(*DISC_RADIUS)
    cx, cy = _path(rng, radius)
    lit = 1 - 0.25 * ((x - cx) + (y - cy)) / radius / np.sqrt(2)  # light from the upper left
    _cover(frames, radius - np.hypot(x - cx, y - cy), level * lit.clip(0.6, 1.4))


def _paint_bar(frames: np.ndarray, rng: np.random.Generator) -> None:
    y, x = np.mgrid[:FRAME, :FRAME]
    cx, cy = _path(rng, BAR_LENGTH / 2)
    angle = rng.uniform(0, np.pi) + BAR_TURN * np.arange(VIDEO_FRAMES)[:, None, None]
    along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
    inside = np.minimum(BAR_LENGTH / 2 - np.abs(along), BAR_WIDTH / 2 - np.abs(across))
    _cover(frames, inside, 30.0 + 6.0 * along / BAR_LENGTH)
