"""Synthetic scenes: ellipsoids that move and spin on a floor before a wall, cast ray by ray, with their exact depth and motion.

Light falls from straight above and bodies spin about the vertical, so that a point of a surface keeps its colour wherever it
goes: what changes in the pictures is motion alone. Nothing here was observed.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pdr_cli.data import cameras, scenes
from pdr_cli.data.scenes import Scene, Size

SCENES = 240
SIZE = Size(views=2, frames=9, height=64, width=64)
SUPERSAMPLED = 2  # rays a pixel along each side, for colours; depths are those of the pixels' centres
WALL, FLOOR = 7.0, 1.3  # distance before and height below the first camera, scene units
NEAREST = 0.1  # depth that a camera sees, scene units
ORBIT = (8.0, 20.0)  # degrees that a camera travels on its arc
TILT = 0.35  # radians by which an arc may climb
DOLLY = 0.4  # scene units forwards or back, at most
BODIES = (2, 3)
RADII = (0.42, 0.82)  # scene units: 9 to 17 pixels across at 3.6 units
PLACES = ((-1.6, 1.6), (-0.9, 0.6), (2.7, 4.5))  # x, y and z of centres
SPEED = (0.35, 0.95)  # along the floor, scene units in the time of a scene
CLIMB = 0.5  # of bodies that do not lie on the floor, at most
SPIN = 1.5  # radians in the time of a scene, at most
LYING = 0.55  # share of bodies that lie on the floor
IN_VIEW = 0.9  # of the half frame, for the centre of a body at the start and the end
ATTEMPTS = 60  # at a place where a body is seen and meets no other
UNDERSIDE, FAR = 0.45, 0.65  # brightness of the underside of a body, and of floor and wall far from the light
LIT, POOL = (0.0, FLOOR, 5.25), 3.2  # the brightest place, and the radius of the light there (1 sigma), scene units
SOFTNESS = 4.0  # of the edges of tiles, so that they do not alias far away

Pattern = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Plane:
    """The wall or the floor, at the coordinate `offset` of `axis`, with a pattern of its two other coordinates."""

    axis: int
    offset: float
    colours: np.ndarray
    pattern: Pattern

    def hit(self, origin: np.ndarray, directions: np.ndarray, time: float) -> np.ndarray:
        """Depth [N] at which rays [N, 3] meet the plane; infinite where they do not."""
        slope = directions[:, self.axis]
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (self.offset - origin[self.axis]) / slope
        return np.where(depth > NEAREST, depth, np.inf)

    def colour(self, points: np.ndarray, time: float) -> np.ndarray:
        """Colours [N, 3] of points [N, 3]."""
        across, along = (points[:, i] for i in range(3) if i != self.axis)
        mixed = _mixed(self.colours, self.pattern(across, along))
        light = np.exp(-0.5 / POOL**2 * _squares(points - LIT))
        return mixed * (FAR + (1 - FAR) * light)[:, None]


@dataclass(frozen=True)
class Body:
    """An ellipsoid.

    Args:
        centre: [3] at time 0.
        radii: [3] along its own axes.
        velocity: [3], units in the time of a scene.
        heading: radians about the vertical at time 0.
        spin: radians in the time of a scene.
        colours: [2, 3] that its pattern mixes.
        pattern: of the points of the unit sphere.
    """

    centre: np.ndarray
    radii: np.ndarray
    velocity: np.ndarray
    heading: float
    spin: float
    colours: np.ndarray
    pattern: Callable[[np.ndarray], np.ndarray]

    def turned(self, time: float) -> np.ndarray:
        """Its axes in the world: [3, 3]."""
        return cameras.rotation(cameras.DOWN, self.heading + self.spin * time)

    def at(self, time: float) -> np.ndarray:
        """Its centre [3]."""
        return self.centre + self.velocity * time

    def hit(self, origin: np.ndarray, directions: np.ndarray, time: float) -> np.ndarray:
        """Depth [N] at which rays [N, 3] meet it first; infinite where they do not."""
        start, ways = self._own(origin, time), directions @ self.turned(time) / self.radii
        square, half = _squares(ways), ways @ start
        root = half**2 - square * (start @ start - 1)
        depth = (-half - np.sqrt(root.clip(0))) / square
        return np.where((root > 0) & (depth > NEAREST), depth, np.inf)

    def colour(self, points: np.ndarray, time: float) -> np.ndarray:
        """Colours [N, 3] of points [N, 3] of its surface, lit from above."""
        sphere = self._own(points, time)
        normals = sphere / self.radii
        up = -normals[:, 1] / np.sqrt(_squares(normals))
        return _mixed(self.colours, self.pattern(sphere)) * (UNDERSIDE + (1 - UNDERSIDE) * (0.5 + 0.5 * up))[:, None]

    def moved(self, points: np.ndarray, time: float) -> np.ndarray:
        """By how much points [N, 3] of its surface at time 0 have moved at `time`: [N, 3]."""
        turn = self.turned(time) @ self.turned(0).T
        return (points - self.centre) @ turn.T + self.at(time) - points

    def _own(self, points: np.ndarray, time: float) -> np.ndarray:
        """Points [..., 3] of the world on its own axes, with its surface as the unit sphere."""
        return (points - self.at(time)) @ self.turned(time) / self.radii


World = list[Plane | Body]


def make(seed: int, number: int, size: Size = SIZE) -> Scene:
    """Scene `number` of those of a seed; it does not depend on how many others are made."""
    rng = np.random.default_rng((seed, number))
    world, times = room(rng), cameras.even_times(size.frames)
    paths = [path(rng, size.frames) for _ in range(size.views)]
    shots = [[shot(world, p, t, size) for p, t in zip(poses, times, strict=True)] for poses in paths]
    image, depth, owner = (np.stack([[s[i] for s in view] for view in shots]) for i in range(3))
    track, moving = tracks(world, times, depth[0, 0], owner[0, 0])
    return Scene(image, depth, np.stack(paths).astype(np.float32), cameras.FOCAL, times, track, moving)


def path(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Poses [T, 4, 4] of a random arc about a point before the first camera, with a dolly."""
    tilt, run = rng.uniform(-TILT, TILT), cameras.even_times(frames)
    axis = np.array([np.sin(tilt), np.cos(tilt), 0])
    turned = np.radians(rng.uniform(*ORBIT)) * rng.choice((-1, 1))
    return cameras.arc(axis, turned * run, rng.uniform(-DOLLY, DOLLY) * run)


def shot(world: World, pose: np.ndarray, time: float, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera sees: colours [H, W, 3] uint8, depth [H, W] float32, and number of the thing [H, W] in `world`."""
    depth, owner, _ = cast(world, pose, time, scenes.rays(size, cameras.FOCAL))
    fine = size._replace(height=SUPERSAMPLED * size.height, width=SUPERSAMPLED * size.width)
    _, _, colours = cast(world, pose, time, scenes.rays(fine, cameras.FOCAL))
    blocks = colours.reshape(size.height, SUPERSAMPLED, size.width, SUPERSAMPLED, 3)
    image = (255 * blocks.mean(axis=(1, 3)).clip(0, 1)).round().astype(np.uint8)
    return image, depth.astype(np.float32), owner


def cast(world: World, pose: np.ndarray, time: float, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth [H, W], number of the thing that is met [H, W], and its colour [H, W, 3], along rays [H, W, 3] of a camera."""
    directions, origin = rays.reshape(-1, 3) @ pose[:3, :3], cameras.centres(pose)
    hits = np.stack([thing.hit(origin, directions, time) for thing in world])
    owner, depth = hits.argmin(axis=0), hits.min(axis=0)
    points = origin + depth[:, None] * directions
    colours = np.empty_like(points)
    for number, thing in enumerate(world):
        mine = owner == number
        colours[mine] = thing.colour(points[mine], time)
    shape = rays.shape[:2]
    return depth.reshape(shape), owner.reshape(shape), colours.reshape(*shape, 3)


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Squared lengths [N] of vectors [N, 3]; many times faster than a sum over the last axis."""
    return np.einsum("ij,ij->i", vectors, vectors)


def tracks(world: World, times: np.ndarray, depth: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Displacements [T, 3, H, W] float32 of the points that the first frame shows, and which of them move [H, W]."""
    size = Size(1, len(times), *depth.shape)
    start = scenes.rays(size, cameras.FOCAL) * depth[..., None]
    found = np.zeros((size.frames, *depth.shape, 3), np.float32)
    moving = np.zeros(depth.shape, bool)
    for number, thing in enumerate(world):
        if isinstance(thing, Body):
            mine = owner == number
            moving |= mine
            found[:, mine] = [thing.moved(start[mine], time) for time in times]
    return np.moveaxis(found, -1, 1), moving


def room(rng: np.random.Generator) -> World:
    """A wall, a floor and two or three bodies, of colours that go together."""
    hue = rng.uniform()
    wall = Plane(
        2, WALL, _pair(hue, rng.uniform(0.15, 0.45), rng.uniform(0.75, 1.0), rng), _plane_pattern(rng, 5.0, 5.0)
    )
    warm = hue + rng.choice((0.08, 0.42, 0.5, 0.58))
    floor = Plane(
        1, FLOOR, _pair(warm, rng.uniform(0.2, 0.55), rng.uniform(0.6, 0.9), rng), _plane_pattern(rng, 4.5, 2.2)
    )
    count, first = int(rng.integers(BODIES[0], BODIES[1] + 1)), hue + rng.uniform(0.15, 0.4)
    bodies: list[Body] = []
    for number in range(count):
        bodies.append(_body(rng, first + number * (0.7 / count), bodies))
    return [wall, floor, *bodies]


def _body(rng: np.random.Generator, hue: float, others: list[Body]) -> Body:
    """A body at a place where it is seen and meets no other, if there is one."""
    colours = _pair(hue, rng.uniform(0.6, 0.95), rng.uniform(0.85, 1.0), rng, apart=True)
    pattern = partial(BODY_PATTERNS[int(rng.integers(len(BODY_PATTERNS)))], rng.uniform(3.2, 4.8))
    heading, spin = rng.uniform(0, np.pi), rng.uniform(0.3, SPIN) * rng.choice((-1, 1))
    for _ in range(ATTEMPTS):
        radii, (centre, velocity) = rng.uniform(*RADII, 3), _motion(rng)
        if rng.uniform() < LYING:
            centre[1], velocity[1] = FLOOR - radii[1], 0
        body = Body(centre, radii, velocity, heading, spin, colours, pattern)
        if _fits(body, others):
            break
    return body


def _motion(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A place and a velocity, each [3]."""
    centre = np.array([rng.uniform(low, high) for low, high in PLACES])
    way, speed = rng.uniform(-0.5, 0.5), rng.uniform(*SPEED) * -np.sign(centre[0])
    return centre, np.array([speed * np.cos(way), rng.uniform(-CLIMB, CLIMB), abs(speed) * np.sin(way)])


def _fits(body: Body, others: list[Body]) -> bool:
    """Whether a body is in view at the start and the end, above the floor, and clear of the others all the time."""
    for time in (0.0, 0.5, 1.0):
        x, y, z = body.at(time)
        if y + body.radii[1] > FLOOR + 1e-9 or max(abs(x), abs(y)) * cameras.FOCAL > IN_VIEW * z:
            return False
        for other in others:
            if np.linalg.norm(body.at(time) - other.at(time)) < max(body.radii) + max(other.radii):
                return False
    return True


def _pair(hue: float, saturation: float, value: float, rng: np.random.Generator, apart: bool = False) -> np.ndarray:
    """Two colours [2, 3] of a pattern: near each other, or a bright one and cream, a dark shade or another hue."""
    others = ((hue + 0.1, 0.12, 1.0), (hue, saturation, 0.5 * value), (hue + 0.35, saturation, 0.9 * value))
    near = (hue + rng.uniform(-0.06, 0.06), 0.8 * saturation, rng.uniform(0.5, 0.65) * value)
    other = others[int(rng.integers(len(others)))] if apart else near
    return np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in ((hue, saturation, value), other)])


def _mixed(colours: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Colours [N, 3] between two, by a level [N] from -1 to 1."""
    share = (0.5 + 0.5 * level)[:, None]
    return share * colours[0] + (1 - share) * colours[1]


def _plane_pattern(rng: np.random.Generator, across: float, along: float) -> Pattern:
    """A pattern of a plane; `across` and `along` are the largest frequencies in radians a unit."""
    frequency = rng.uniform(0.5, 1.0, 2) * (across, along)
    return partial(PLANE_PATTERNS[int(rng.integers(len(PLANE_PATTERNS)))], frequency, rng.uniform(0, 2 * np.pi, 5))


def _waves(frequency: np.ndarray, phase: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sin(frequency[0] * x + phase[0]) * np.sin(frequency[1] * y + phase[1])


def _tiles(frequency: np.ndarray, phase: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.tanh(SOFTNESS * _waves(0.75 * frequency, phase, x, y))


def _clouds(frequency: np.ndarray, phase: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five plane waves in different directions, mean square 1/2 as a single one."""
    turned = phase[0] + np.arange(5) * 2 * np.pi / 5 * (1 + np.arange(5) / 7)
    scales = np.linspace(0.3, 1.0, 5)
    kx, ky = frequency[0] * scales * np.cos(turned), frequency[1] * scales * np.sin(turned)
    return np.tanh(np.sin(np.outer(x, kx) + np.outer(y, ky) + phase).sum(axis=1) / 1.6)


def _planks(frequency: np.ndarray, phase: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Stripes with a grain along them."""
    return 0.75 * np.tanh(2 * np.sin(frequency[0] * x + phase[0])) + 0.25 * np.sin(
        frequency[1] * y + 2 * np.sin(0.7 * x + phase[1])
    )


def _checks(frequency: float, sphere: np.ndarray) -> np.ndarray:
    return np.sign(np.prod(np.sin(frequency * sphere + 0.4), axis=1))


def _bands(frequency: float, sphere: np.ndarray) -> np.ndarray:
    return np.sign(np.sin(1.4 * frequency * sphere[:, 1] + 0.3 * np.sin(3 * np.arctan2(sphere[:, 0], sphere[:, 2]))))


def _gores(frequency: float, sphere: np.ndarray) -> np.ndarray:
    """The slices of a beach ball."""
    return np.sign(np.sin(round(frequency) * np.arctan2(sphere[:, 0], sphere[:, 2])))


def _dots(frequency: float, sphere: np.ndarray) -> np.ndarray:
    return np.sign(np.cos(frequency * sphere).sum(axis=1) - 0.4)


PLANE_PATTERNS = (_waves, _tiles, _clouds, _planks)
BODY_PATTERNS = (_checks, _bands, _gores, _dots, _checks)
