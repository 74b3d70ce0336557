"""The ablations by name: the settings they compare, and the scores that the paper prints for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdr_cli.choices import ABLATIONS
from pdr_cli.trust import Trust

PAPER = "paper: A800, full data"  # heads the paper's columns; our own columns never carry it
# Table 4, by predictor: MSE without and with PDR, then MAE without and with (WeatherBench T2m).
TABLE_4 = {
    "simvp": ("1.238", "1.229", "0.7037", "0.6869"),
    "simvp2": ("1.105", "1.078", "0.6567", "0.6349"),
    "tau": ("1.162", "1.071", "0.6707", "0.6353"),
    "convnext": ("1.277", "1.196", "0.7220", "0.6735"),
    "hornet": ("1.201", "1.157", "0.6906", "0.6579"),
    "moganet": ("1.152", "1.092", "0.6665", "0.6353"),
    "vit": ("1.146", "1.127", "0.6712", "0.6479"),
    "swin": ("1.143", "1.101", "0.6735", "0.6414"),
    "uniformer": ("1.204", "1.153", "0.6885", "0.6623"),
    "poolformer": ("1.156", "1.104", "0.6715", "0.6391"),
    "van": ("1.150", "1.110", "0.6803", "0.6478"),
    "mlpmixer": ("1.255", "1.154", "0.7011", "0.6563"),
}
WEATHER = ("WeatherBench MSE", "WeatherBench MAE")
TAXI = ("TaxiBJ MSE", "TaxiBJ MAE")


@dataclass(frozen=True)
class Variant:
    """One row: a name, the keys of the preset that it changes, and the paper's scores by column."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablation:
    """Variants to compare; the first is the reference of the others.

    Args:
        about: in a phrase.
        variants: to compare.
        then: settings of a second training, which starts from the model of each variant: of the generator in its latents.
        of_scenes: True if it is of moving scenes, and of no forecasts.
    """

    about: str
    variants: tuple[Variant, ...]
    then: Mapping[str, Any] = field(default_factory=dict)
    of_scenes: bool = False

    @property
    def columns(self) -> list[str]:
        """The paper's columns, in order; none where the paper has no such table."""
        return list(dict.fromkeys(column for variant in self.variants for column in variant.paper))


def paper(columns: tuple[str, ...], *values: str) -> dict[str, str]:
    """A row of the paper's table, by column."""
    return dict(zip(columns, values, strict=True))


def _adapter(name: str) -> Variant:
    return Variant(name, {"model.adapter": name})


def loss() -> Ablation:
    """Loss by module (Table 5)."""
    columns = (*TAXI, *WEATHER, "KTH SSIM", "KTH LPIPS")
    printed = {
        ("predictor", "l2reg"): ("0.3108", "14.93", "1.162", "0.6707", "0.9086", "0.22856"),
        ("predictor", "l1ssim"): ("0.3088", "14.43", "1.136", "0.6547", "0.9137", "0.20216"),
        ("pdr", "l2reg"): ("0.3400", "15.27", "1.177", "0.6764", "0.9127", "0.21850"),
        ("pdr", "l1ssim"): ("0.2807", "14.29", "1.071", "0.6353", "0.9145", "0.16237"),
    }
    rows = []
    for (model, loss), values in printed.items():
        settings = {"train.loss": loss} | ({"model.fusion": "none"} if model == "predictor" else {})
        rows.append(Variant(f"{model} {loss}", settings, paper(columns, *values)))
    return Ablation("loss by module (Table 5)", tuple(rows))


def init() -> Ablation:
    """Where the Gaussians start (Table 8)."""
    printed = {
        "grid": ("0.2807", "14.29"),
        "none": ("0.2893", "14.36"),
        "color": ("0.3024", "14.37"),
        "corner": ("0.3052", "14.42"),
    }
    flatten = {"model.adapter": "flatten"}
    rows = [Variant(name, {**flatten, "model.init": name}, paper(TAXI, *values)) for name, values in printed.items()]
    return Ablation(
        "where the Gaussians start (Table 8)", (*rows, Variant("random", {**flatten, "model.init": "random"}))
    )


def fusion() -> Ablation:
    """How forecast and Gaussians are combined (Table 8)."""
    printed = {
        "concat": ("0.2807", "14.29"),
        "none": ("0.3108", "14.93"),
        "gs": ("0.3501", "15.33"),
        "add": ("0.2998", "14.31"),
    }
    rows = [Variant(name, {"model.fusion": name}, paper(TAXI, *values)) for name, values in printed.items()]
    return Ablation(
        "how forecast and Gaussians are combined (Table 8)", (*rows, Variant("gated", {"model.fusion": "gated"}))
    )


def l1_weight() -> Ablation:
    """Share of L1 in the loss (Table 8)."""
    printed = {
        0.5: ("0.2807", "14.29"),
        0.0: ("0.3852", "16.58"),
        0.8: ("0.2850", "14.30"),
        1.0: ("0.2907", "14.32"),
    }
    return Ablation(
        "share of L1 in the loss (Table 8)",
        tuple(
            Variant(f"lambda {share:g}", {"train.loss": "l1ssim", "train.l1_weight": share}, paper(TAXI, *values))
            for share, values in printed.items()
        ),
    )


def gaussians() -> Ablation:
    """Number of Gaussians (Table 6)."""
    printed = {
        300: ("1.071", "0.6353"),
        100: ("1.107", "0.6437"),
        200: ("1.098", "0.6451"),
        400: ("1.107", "0.6459"),
        500: ("1.097", "0.6428"),
    }
    return Ablation(
        "number of Gaussians (Table 6)",
        tuple(
            Variant(f"N {n}", {"model.adapter": "flatten", "model.gaussians": n}, paper(WEATHER, *values))
            for n, values in printed.items()
        ),
    )


def kernel() -> Ablation:
    """Kernel size (Table 7)."""
    printed = {
        15: ("0.2807", "14.29", "1.071", "0.6353"),
        7: ("0.3035", "14.42", "1.081", "0.6367"),
        11: ("0.2967", "14.48", "1.082", "0.6378"),
        21: ("0.3038", "14.48", "1.085", "0.6371"),
    }
    return Ablation(
        "kernel size (Table 7)",
        tuple(
            Variant(f"K {k}", {"model.kernel_size": k}, paper((*TAXI, *WEATHER), *values))
            for k, values in printed.items()
        ),
    )


def downsample() -> Ablation:
    """Pooling rate and width of the MLPs (Table 6)."""
    printed = {(2, 256): "1.071", (4, 64): "1.097", (1, 1024): "1.098"}
    return Ablation(
        "pooling rate and width of the MLPs (Table 6)",
        tuple(
            Variant(
                f"rate {rate}, width {width}",
                {"model.adapter": "flatten", "model.downsample": rate, "model.hidden": width},
                paper(WEATHER[:1], mse),
            )
            for (rate, width), mse in printed.items()
        ),
    )


def adapter() -> Ablation:
    """The paper's adapter and a local one, each beside its control without Gaussians."""
    alone = Variant("predictor alone", {"model.fusion": "none"})
    return Ablation(
        "what follows the predictor: the paper's adapter and a local one, each beside its control without Gaussians",
        (alone, *(_adapter(name) for name in ("flatten", "mlp", "local", "conv"))),
    )


def choices() -> Ablation:
    """Choices that the paper leaves open."""
    flatten = {"model.adapter": "flatten"}
    changed: dict[str, dict[str, Any]] = {
        "absolute, peak, tanh, residual": {},
        "coords offset": {"model.coords": "offset"},
        "normalize density": {"model.normalize": "density"},
        "amplitude sigmoid": {"model.amplitude": "sigmoid"},
        "amplitude linear": {"model.amplitude": "linear"},
        "fusion_init random": {"model.fusion_init": "random"},
        "literal": {
            "model.normalize": "density",
            "model.amplitude": "sigmoid",
            "model.fusion_init": "random",
        },
    }
    first = {
        "model.coords": "absolute",
        "model.normalize": "peak",
        "model.amplitude": "tanh",
        "model.fusion_init": "residual",
    }
    return Ablation(
        "what the paper leaves open: coordinates, normalisation, amplitudes, first weights of the fusion",
        tuple(Variant(name, {**flatten, **first, **settings}) for name, settings in changed.items()),
    )


def backbones() -> Ablation:
    """Predictors, each alone and with PDR (Table 4)."""
    rows = []
    for name in (*TABLE_4, "convmixer"):
        values = TABLE_4.get(name)
        alone = paper(WEATHER, values[0], values[2]) if values else {}
        attached = paper(WEATHER, values[1], values[3]) if values else {}
        rows.append(Variant(name, {"model.backbone": name, "model.fusion": "none"}, alone))
        rows.append(Variant(f"{name} + pdr", {"model.backbone": name}, attached))
    return Ablation("predictors, each alone and with PDR (Table 4)", tuple(rows))


def predictive() -> Ablation:
    """Whether the predictive objective makes latents easier to generate in."""
    variants = [
        Variant(f"drop {drop}, difference {weight}", {"latent.drop": drop, "latent.difference_weight": weight})
        for drop in ("none", "mix", "uniform")
        for weight in (1, 0)
    ]
    generator = {"latent.generator": "flow", "latent.guess": "none", "train.ema": 0.995, "train.val_windows": 16}
    about = "whether the predictive objective makes latents easier to generate in: a VAE, then a flow from noise in its latents"
    return Ablation(about, tuple(variants), generator | {"train.batch": 16, "train.lr": 0.0015})


def moving() -> Ablation:
    """What moving Gaussians gain over their controls, and what each part of their training does."""
    painting = {"model.fusion": "add"}
    alone = {"train.motion_weight": 0, "train.opacity_weight": 0}
    changed: dict[str, dict[str, Any]] = {
        "carry": {},
        "carry, without Gaussians": {"model.adapter": "deform-dense"},
        "carry, no loss of ways": {"train.motion_weight": 0},
        "carry, in stages": {"train.stages": [0.4, 0.4, 0.2]},
        "carry, free curves": {"model.deform_basis": "free"},
        "carry, from standing still": {"model.deform_start": "still"},
        "paint": painting,
        "paint, one set a frame": {**painting, **alone, "model.adapter": "local"},
        "paint, without Gaussians": {**painting, **alone, "model.adapter": "conv"},
        "anchor or predictor alone": {**alone, "model.fusion": "none"},
    }
    first = {
        "model.adapter": "deform",
        "model.fusion": "carry",
        "model.deform_start": "flow",
        "train.motion_weight": 2,
        "train.opacity_weight": 1e-4,
    }
    return Ablation(
        "Gaussians that move, which carry the last frame or paint, beside controls without Gaussians or without their motion",
        tuple(Variant(name, {**first, **settings}) for name, settings in changed.items()),
    )


def scenes() -> Ablation:
    """What each part of the training on moving scenes does, and what their latents add."""
    changed: dict[str, dict[str, Any]] = {
        "full": {},
        "no loss of ways": {"train.motion_weight": 0},
        "no deformation": {"scene.moves": "false", "train.motion_weight": 0},
        "in stages": {"train.stages": [0.2, 0.2, 0.6]},
        "true latents": {"scene.latents": "true"},
        "drawn latents": {"scene.latents": "drawn"},
        "no latents": {"scene.latents": "none", "scene.parts": []},
        "free curves": {"model.deform_basis": "free"},
    }
    return Ablation(
        "moving scenes: without their loss of ways, their motion or their latents, in stages, and with other curves",
        tuple(Variant(name, settings) for name, settings in changed.items()),
        of_scenes=True,
    )


def find(name: str, trust: Trust | None = None) -> Ablation:
    """The ablation of that name: ours, an entry point's of `pdr.ablations`, or that of `module:function`.

    Raises:
        UsageError: unknown.
        UntrustedCodeError: a `module:function` whose code may not run.
    """
    return ABLATIONS.find(name, trust)()
