"""What a training on scenes learns: in its parts the VAE, its generator and the Reconstructor, or the last alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pdr_cli.models.interfaces import Terms
from pdr_cli.models.lpips import LPIPS
from pdr_cli.models.scenes import losses
from pdr_cli.models.scenes.latents import LatentSource, VideoLatents
from pdr_cli.models.scenes.losses import Truth
from pdr_cli.models.scenes.scene import SceneModel, Shot, along, seen
from pdr_cli.models.shares import place
from pdr_cli.optional_tables import SceneConfig
from pdr_cli.runs.films import Films, SceneData
from pdr_cli.schema import TrainConfig
from pdr_cli.splat.camera import rays
from pdr_cli.system.memory import Batches
from pdr_cli.training import step
from pdr_cli.training.kept import Kept
from pdr_cli.training.lessons import Learned, Lesson
from pdr_cli.training.randomness import Randomness
from pdr_cli.training.stages import HALF, MOVING, halved
from pdr_cli.training.validation import Scores

VAE, GENERATOR, RECONSTRUCTOR = range(3)  # the parts
MOTION_SCALE = 0.1  # of the loss of motion, in scene units, before train.motion_weight
MEASURED = 128  # training scenes on which the latents are measured, at most


class SceneBatch(NamedTuple):
    """Scenes of a step.

    Args:
        films: of the scenes.
        latents: of their videos, [B, G, z, h, w]; None where they are trained too.
        part: of the training.
        stage: of the last part.
    """

    films: Films
    latents: Tensor | None
    part: int
    stage: int

    def rows(self, which: slice) -> SceneBatch:
        """Some of the scenes."""
        return self._replace(
            films=self.films.rows(which), latents=None if self.latents is None else self.latents[which]
        )


@dataclass
class SceneLesson(Lesson[SceneBatch]):
    """Scenes from their first picture and the path of its camera.

    Args:
        network: on its device.
        data: the scenes.
        options: the [scene] table.
        config: the [train] table.
        device: the network's.
        perceptual: the network of LPIPS, see `losses.photometric`.
        kept: latents of training scenes, true and drawn, which another lesson with the same VAE and generator may have made.
    """

    network: SceneModel
    data: SceneData
    options: SceneConfig
    config: TrainConfig
    device: torch.device
    perceptual: LPIPS | None = None
    kept: tuple[Kept, Kept] = field(default_factory=lambda: (Kept(), Kept()))

    def __post_init__(self) -> None:
        self._true, self._drawn = self.kept
        step = max(1, -(-len(self.data.val) // self.config.val_windows))
        self._val = list(self.data.val)[::step]

    @property
    def count(self) -> int:
        """See `Lesson.count`."""
        return len(self.data.train)

    @property
    def size(self) -> tuple[int, int]:
        """See `Lesson.size`."""
        return self.data.size

    def scheduled(self, progress: float) -> float:
        """See `Lesson.scheduled`: each part has a schedule of its own."""
        return self.part(progress)[1]

    def is_validated(self, progress: float) -> bool:
        """See `Lesson.is_validated`: before its turn the Reconstructor shows nothing."""
        return self.part(progress)[0] == RECONSTRUCTOR

    def part(self, progress: float) -> tuple[int, float]:
        """The part of the training, and the share of it that is done."""
        return place(self.options.parts or [0.0, 0.0, 1.0], progress)

    def batch(self, which: np.ndarray, progress: float) -> SceneBatch:
        """See `Lesson.batch`: frames at random times, by the cameras in turn."""
        (part, share), size = self.part(progress), self.data.file.size
        if part > VAE:
            self._measure()
        frames = torch.randperm(size.frames)[: self.options.frames].tolist()
        first = int(torch.randint(size.views, ()))
        views = [(first + number) % size.views for number in range(len(frames))]
        films = self.data.films([self.data.train[i] for i in which], views, frames, self.device)
        stage = place(self.config.stages, share)[0] if self.config.stages else MOVING
        latents = self._latents(films, which) if part == RECONSTRUCTOR else None
        return SceneBatch(films, latents, part, stage)

    def passes(self, batch: SceneBatch) -> int:
        """See `Lesson.passes`."""
        return len(batch.films.video)

    def learn(self, batch: SceneBatch, at_once: int, randomness: Randomness) -> Learned:
        """See `Lesson.learn`; the logged loss is the value that is minimised."""
        scenes = len(batch.films.video)
        if at_once >= scenes:
            return self._learn(batch)
        rows = [slice(start, min(start + at_once, scenes)) for start in range(0, scenes, at_once)]
        made = [checkpoint(self._learn, batch.rows(part), use_reentrant=False) for part in rows]
        shares = [(part.stop - part.start) / scenes for part in rows]
        total = step.mean([one.total for one in made], shares)
        return Learned(total, total, step.mean_terms([one.terms for one in made], shares))

    def _learn(self, batch: SceneBatch) -> Learned:
        source, films = self.network.source, batch.films
        if batch.part == RECONSTRUCTOR:
            terms = self._scene_terms(batch)
            total = sum(self._weight(name) * term for name, term in terms.items())
        elif batch.part == GENERATOR:
            terms = {"generator": _video_latents(source).generator_loss(films.video, self._rays(films))}
            total = terms["generator"]
        else:
            terms = _video_latents(source).vae_terms(films.video)
            total = sum(terms.values())
        return Learned(torch.as_tensor(total), torch.as_tensor(total), terms)

    def _weight(self, term: str) -> float:
        """Of a loss of the Reconstructor."""
        return {
            "geometry": self.options.geometry_weight,
            "motion": MOTION_SCALE * self.config.motion_weight,
            "opacity": self.config.opacity_weight,
        }.get(term, 1.0)

    def _scene_terms(self, batch: SceneBatch) -> Terms:
        """The losses of the Reconstructor at its stage."""
        films, truth = batch.films, batch.films.truth
        latents = self.network.source.encode(films.video) if batch.latents is None else batch.latents
        shot = Shot(films.video[:, 0], films.path, latents)
        if batch.stage == HALF:
            shot, truth = Shot(halved(shot.picture), shot.path, halved(latents)), half_truth(truth)
        scene = self.network(shot)
        still = batch.stage != MOVING or not self.options.moves
        gaussians = scene.still(len(films.times)) if still else scene.at(films.times)
        drawn = seen(gaussians, films.cameras, (truth.depth.shape[-2], truth.depth.shape[-1]))
        return losses.terms(scene, None if still else scene.moves(films.times)[0], drawn, truth, self.perceptual)

    def _latents(self, films: Films, which: np.ndarray) -> Tensor | None:
        """The latents that the Reconstructor is trained on; None where they are made of the video by what is trained with it."""
        if self.options.latents in ("none", "oracle"):
            return None
        source = _video_latents(self.network.source)
        kinds = {"true": self._encoded, "drawn": self._draws}
        if self.options.latents != "mixed":
            return kinds[self.options.latents](source, films, which)
        choice = torch.rand(len(which)).to(self.device) < 0.5
        true, drawn = (make(source, films, which) for make in kinds.values())
        return torch.where(choice[:, None, None, None, None], true, drawn)

    @torch.no_grad()
    def _encoded(self, source: VideoLatents, films: Films, which: np.ndarray) -> Tensor:
        """The latents of the true videos."""
        return self._true.of(which, lambda row: source.encode(films.video[row : row + 1])[0])

    @torch.no_grad()
    def _draws(self, source: VideoLatents, films: Films, which: np.ndarray) -> Tensor:
        """Latents that are drawn from the pictures, for each scene always the same."""
        path, seeds = self._rays(films), torch.from_numpy(which).to(self.device)

        def draw(row: int) -> Tensor:
            one = slice(row, row + 1)
            return source.draw(films.video[one, 0], path[one], seeds[one])[0]

        return self._drawn.of(which, draw)

    def _rays(self, films: Films) -> Tensor:
        """Of all pixels along the path, [B, T, 6, H, W]."""
        with torch.autocast(self.device.type, enabled=False):
            return rays(along(films.path), self.data.size)

    def _measure(self) -> None:
        """Measure the latents once, where the VAE has been trained and the generator has not."""
        source = self.network.source
        if isinstance(source, VideoLatents) and not source.members.measured:
            step = max(1, len(self.data.train) // MEASURED)
            source.measure(self.data.videos(self.data.train[::step], self.device))

    def validate(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores:
        """See `Lesson.validate`: frames after the first by the last camera, from latents as training takes them.

        The loss is the photometric one.
        """
        return self._scores(self._seen_by_last, autocast)

    def validate_anchor(self, batches: Batches, autocast: AbstractContextManager[object]) -> Scores | None:
        """Scores of the picture in place of every frame."""
        return self._scores(lambda films, number: [films.video[:, :1].expand_as(films.truth.frames)], autocast)

    def _scores(
        self, forecasts: Callable[[Films, int], list[Tensor]], autocast: AbstractContextManager[object]
    ) -> Scores:
        """Mean scores of forecasts of each validation scene alone."""
        size, losses_, squares = self.data.file.size, [], []
        frames = range(min(1, size.frames - 1), size.frames)
        self.network.eval()
        with torch.inference_mode(), autocast:
            for number in self._val:
                films = self.data.films([number], [size.views - 1] * len(frames), frames, self.device)
                for made in forecasts(films, number):
                    losses_.append(losses.photometric(made, films.truth.frames, self.perceptual))
                    squares.append((made - films.truth.frames).square().mean(dim=(0, 1, 3, 4), dtype=torch.float64))
        return Scores(float(torch.stack(losses_).mean()), torch.stack(squares).mean(dim=0).sqrt().tolist())

    def _seen_by_last(self, films: Films, number: int) -> list[Tensor]:
        """The frames of a validation scene from each kind of latents that training takes, [1, F, 3, H, W]."""
        source, kind = self.network.source, self.options.latents
        latents = [source.encode(films.video)] if kind != "drawn" else []
        if kind in ("drawn", "mixed"):
            seed = torch.tensor([len(self.data.file) + number], device=self.device)  # none of the training's
            latents.append(_video_latents(source).draw(films.video[:, 0], self._rays(films), seed))
        scenes = [self.network(Shot(films.video[:, 0], films.path, one)) for one in latents]
        return [seen(scene.at(films.times), films.cameras, self.data.size).features for scene in scenes]

    def named(self, which: np.ndarray) -> str:
        """See `Lesson.named`."""
        return f"scenes {', '.join(str(self.data.train[i]) for i in which)} of {self.data.file.path.name}"


def half_truth(truth: Truth) -> Truth:
    """Frames at half the size; a pixel moves where one of its four does."""
    moving = halved(truth.moving.float()) > 0
    return Truth(halved(truth.frames), halved(truth.depth), halved(truth.track), moving)


def _video_latents(source: LatentSource) -> VideoLatents:
    """A source that has a VAE and a generator, as every one but that of oracle, which has one part alone."""
    assert isinstance(source, VideoLatents)
    return source
