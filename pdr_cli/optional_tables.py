"""The tables of a configuration that few presets have, [latent] and [scene]; `schema` has the others."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pdr_cli.settings import NONE, three_shares


class Table(BaseModel):
    """A table of checked values, which has no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LatentConfig(Table):
    """Latent space and generator of the predictor pvvae, the only one that reads this table."""

    channels: int = Field(ge=1, description="channels of a latent, z")
    group: Literal[2, 4] = Field(description="frames of a latent, p; the first frame has one of its own")
    conv3d: bool = Field(description="true: 3x3x3 convolutions; false: 3x3 in space and 3 in time")
    drop: Literal["mix", "uniform", "forecast", "none"] = Field(description="latents that training drops")
    max_drop: float = Field(gt=0, le=1, description="largest share of the latents after the first that uniform drops")
    pad: Literal["lead", "shared", "noise"] = Field(description="what stands for a dropped latent")
    difference_weight: float = Field(ge=0, description="weight of the squared error of temporal differences")
    kl_weight: float = Field(ge=0, description="weight of the KL divergence, in nats per number of a latent")
    reconstruction_weight: float = Field(ge=0, description="weight of the VAE's terms beside the loss of the forecast")
    generator: Literal["none", "flow", "crps"] = Field(description="what draws members in the VAE of --init-from")
    flow_width: int = Field(ge=1, description="channels of the generator")
    flow_depth: int = Field(ge=1, description="blocks of the generator")
    attention: bool = Field(
        description="true: attention over space follows the VAE's blocks at the latents and every second one of the generator"
    )
    flow_steps: int = Field(ge=1, description="Euler steps of a member")
    guess: str = Field(description="what members depart from: self, the direct forecast; none, noise; or a run's")
    inflate: Literal["none", "val"] = Field(
        description="val: at each lead time the departures of members from the direct forecast are multiplied by the factor that "
        "brings spread over skill to 1 on validation windows; measured at the end of training"
    )
    stages: list[float] = Field(
        description="shares of the training of three stages of a VAE, which sum to 1, each with a schedule of its own: single "
        "frames; clips with dropping, and the forecast; a second decoder, for reconstruction and members, with all else still; "
        "empty: clips alone, and one decoder"
    )

    @field_validator("stages")
    @classmethod
    def _are_shares(cls, shares: list[float]) -> list[float]:
        shares = three_shares("stages", shares, "[0.5, 0.4, 0.1]")
        if shares and not shares[1]:
            raise ValueError("the second of the stages is the one that learns to forecast, and its share is 0")
        return shares

    @model_validator(mode="after")
    def _inflates_members(self) -> LatentConfig:
        if self.inflate != NONE and NONE in (self.generator, self.guess):
            why = (
                "draws no members"
                if self.generator == NONE
                else "draws members that do not depart from the direct forecast"
            )
            key, way_out = ("generator", "flow") if self.generator == NONE else ("guess", "self")
            raise ValueError(
                f"inflate is {self.inflate}, and {key} none {why}; take latent.{key}={way_out}, or inflate none"
            )
        return self


class SceneConfig(Table):
    """Moving scenes from one picture, of data of the kind scene, the only one that reads this table."""

    latents: Literal["none", "oracle", "true", "drawn", "mixed"] = Field(
        description="what the Reconstructor is trained on beside the picture and the path: none; oracle, three frames of the "
        "true video, with which nothing can be forecast; latents of the true video, drawn ones, or mixed, either half of the time"
    )
    parts: list[float] = Field(
        description="shares of the training of its three parts, which sum to 1: the VAE, its generator, the Reconstructor; "
        "empty with none and oracle, which have the last alone"
    )
    width: int = Field(ge=4, multiple_of=4, description="channels of the Reconstructor")
    blocks: int = Field(
        ge=1, description="its residual blocks on the grid of the latents; attention follows every second"
    )
    per_pixel: int = Field(ge=1, description="Gaussians of each pixel of the picture")
    moves: bool = Field(description="false: the Gaussians stand still, so that the camera alone moves")
    near: float = Field(gt=0, description="smallest depth of a Gaussian, scene units")
    far: float = Field(gt=0, description="largest depth of a Gaussian, scene units")
    frames: int = Field(ge=1, description="frames that a step draws of each scene, by its cameras in turn")
    fps: float = Field(gt=0, description="frames a second of the videos that pdr predict writes")
    lpips: str = Field(
        description="file of the weights of LPIPS v0.1 (AlexNet), .safetensors, whose distance is a loss; empty: 1 - SSIM is"
    )
    geometry_weight: float = Field(
        ge=0, description="weight of 1 - the correlation of inverse depths and of their smoothness"
    )

    @field_validator("parts")
    @classmethod
    def _are_shares(cls, shares: list[float]) -> list[float]:
        return three_shares("parts", shares, "[0.3, 0.2, 0.5]")

    @model_validator(mode="after")
    def _belongs_together(self) -> SceneConfig:
        if self.near >= self.far:
            raise ValueError(f"scene.near is {self.near:g} and scene.far {self.far:g}; near must be smaller")
        if bool(self.parts) == (self.latents in ("none", "oracle")):
            found = f"scene.latents is {self.latents}, and scene.parts is {self.parts}"
            raise ValueError(f"{found}; none and oracle take [], all others three shares such as [0.3, 0.2, 0.5]")
        return self
