"""Everything that is chosen by name: one door for our own, for installed packages' and for `module:Name`.

A family of choices lists ours by name, each with the place of its object, which is imported when it is first needed, and
a phrase that help texts, tables of the docs and error messages are made from. Packages announce theirs as entry points
of the group `pdr.<family>`; docs/extending.md shows one. A `module:Name` is imported only where it may run (see `trust`).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from pdr_cli.errors import ConfigError, PdrError, UntrustedCodeError, UsageError, did_you_mean
from pdr_cli.trust import ENVIRONMENT, OPTION, Trust, culprit, module_of, source, source_sha256

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from pdr_cli.schema import ModelConfig


@dataclass(frozen=True)
class Choice:
    """One of ours: where its object is, as `module:Name`, and what it is, in a phrase."""

    place: str
    about: str


@dataclass(frozen=True)
class Family:
    """Objects of one kind by name.

    Args:
        name: plural, as in the entry-point group `pdr.<name>`.
        noun: singular, for messages.
        option: what chooses one, such as "--backbone"; "" where a key of the preset does.
        own: ours, in the order in which help texts list them.
        error: raised for an unknown name.
        open: whether entry points and `module:Name` are choices too.
    """

    name: str
    noun: str
    option: str
    own: Mapping[str, Choice]
    error: type[PdrError] = field(default=ConfigError)
    open: bool = True

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"pdr.{self.name}"

    def names(self) -> list[str]:
        """Every name: ours, then those that installed packages announce."""
        return [*self.own, *(n for n in sorted(self.announced()) if n not in self.own)]

    def announced(self) -> dict[str, EntryPoint]:
        """Entry points by name; none of a family that is not open."""
        from importlib.metadata import entry_points  # slow to import, and help texts do without

        points = entry_points(group=self.group) if self.open else ()
        return {point.name: point for point in points if _is_installed(point)}

    def help(self) -> str:
        """Our names for an option's help text: "a, b or c"; of an open family "a, b, c or module:Name"."""
        *most, last = [*self.own, *(["module:Name"] if self.open else [])]
        return f"{', '.join(most)} or {last}" if most else last

    def check(self, name: str) -> None:
        """Refuse a name that nothing has.

        Raises:
            PdrError: of the family's type; lists the names and suggests the nearest.
        """
        if name not in self.own and name not in self.announced() and not (self.open and all(name.partition(":"))):
            raise self.unknown(name)

    def find(self, name: str, trust: Trust | None = None) -> Any:
        """The object of a name: ours, an entry point's, or that of `module:Name`.

        Args:
            name: of the choice.
            trust: the code of others that may run; default: what $PDR_TRUST_CODE names.

        Raises:
            PdrError: of the family's type: unknown name, or an object that cannot be imported.
            UntrustedCodeError: a `module:Name` whose code may not run.
        """
        self.check(name)
        if name in self.own:
            return imported(self.own[name].place)
        announced = {n: point.value for n, point in self.announced().items()}
        if name not in announced and name not in announced.values() and not (trust or Trust()).allows(name):
            raise self.untrusted(name)
        return self._imported(name, announced.get(name, name))

    def place(self, name: str) -> str | None:
        """The `module:Name` of a name that is not ours; None of ours.

        Raises:
            PdrError: as `check`.
        """
        self.check(name)
        if name in self.own:
            return None
        point = self.announced().get(name)
        return name if point is None else point.value

    def untrusted(self, name: str) -> UntrustedCodeError:
        """The error for a `module:Name` whose code may not run."""
        module = module_of(name)
        return UntrustedCodeError(
            f"{self._chosen(name)} is code of the module {module} ({source(module) or 'not found'}), which a file names "
            "and no installed package announces; it was not run",
            way_out=f"if you trust this code, add {OPTION}, or set {ENVIRONMENT}={module}",
        )

    def _imported(self, name: str, place: str) -> Any:
        """The object of another package at a place."""
        if module_of(place) not in FOREIGN:
            FOREIGN.add(module_of(place))
            log.info("code    %s runs %s", self._chosen(name), source(module_of(place)) or place)
        try:
            return imported(place)
        except (ImportError, AttributeError) as error:
            near = did_you_mean(error.name or "", dir(error.obj)) if isinstance(error, AttributeError) else ""
            found = f"{self._chosen(name)} cannot be imported: {error}.{near}"
            raise self.error(found, way_out="the folder of its module must be on PYTHONPATH") from error
        except (Exception, SystemExit) as error:
            where = culprit(error.__traceback__, FOREIGN) or place
            found = f"{self._chosen(name)} cannot be imported: {type(error).__name__}: {error}"
            raise self.error(found, way_out=f"mend {where}") from error

    def unknown(self, name: str) -> PdrError:
        """The error for a name that nothing has."""
        yours = "; yours is named as module:Name" if self.open else ""
        found = f"{self._chosen(name)} is not known.{did_you_mean(name, self.names())}"
        return self.error(found, f"one of {', '.join(self.names())}{yours}")

    def _chosen(self, name: str) -> str:
        return f"{self.option} {name}" if self.option else f"{self.noun} {name!r}"


log = logging.getLogger("pdr")
FOREIGN: set[str] = set()  # modules of others that were imported; they stay imported for the whole process


def _is_installed(point: EntryPoint) -> bool:
    """False for a package that lies unpacked in the current folder, as beside a model that was downloaded."""
    folder = "" if point.dist is None else str(point.dist.locate_file(""))
    if point.dist is None or not os.path.isdir(folder) or not os.path.samefile(folder, os.curdir):
        return True
    _warn_of_unpacked(point.dist.name, folder)
    return False


@cache
def _warn_of_unpacked(name: str, folder: str) -> None:
    log.warning(
        "package %s lies in the current folder %s, which does not make it installed; it is left out", name, folder
    )


@cache
def imported(place: str) -> Any:
    """The object at `module:Name`."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _in(module: str, **choices: tuple[str, str]) -> dict[str, Choice]:
    """Choices by name, each a name within a module and what it is."""
    return {n.replace("__", "-"): Choice(f"pdr_cli.{module}:{what}", about) for n, (what, about) in choices.items()}


_TRANSLATORS = {
    "simvp": ("incepu", "SimVP with inception units (Gao et al., 2022)"),
    "simvp2": ("gsta", "SimVP-V2, gated spatio-temporal attention (Tan et al., 2022)"),
    "tau": ("tau", "temporal attention unit (Tan et al., 2023)"),
    "convnext": ("convnext", "ConvNeXt blocks (Liu et al., 2022)"),
    "hornet": ("hornet", "HorNet, recursive gated convolutions (Rao et al., 2022)"),
    "moganet": ("moganet", "MogaNet, multi-order gated aggregation (Li et al., 2022)"),
    "vit": ("vit", "vision transformer (Dosovitskiy et al., 2020)"),
    "swin": ("swin", "Swin transformer (Liu et al., 2021)"),
    "uniformer": ("uniformer", "UniFormer (Li et al., 2022)"),
    "poolformer": ("poolformer", "PoolFormer (Yu et al., 2022)"),
    "van": ("van", "visual attention network (Guo et al., 2022)"),
    "mlpmixer": ("mlpmixer", "MLP-Mixer (Tolstikhin et al., 2021)"),
    "convmixer": ("convmixer", "ConvMixer (Trockman and Kolter, 2022)"),
    "pfgnet": ("pfg", "peripheral frequency gating (Cai et al., 2026)"),
}
TRANSLATORS = {
    name: Choice(f"pdr_cli.models.predictors.translators.{module}:{module}_translator", about)
    for name, (module, about) in _TRANSLATORS.items()
}

# Predictors that read the table [latent].
LATENT = _in(
    "models.predictors.pvvae", pvvae=("PVVAE", "predictive video VAE (arXiv 2605.02134), members by a generator")
)

PREDICTORS = Family(
    "predictors",
    "predictor",
    "--backbone",
    TRANSLATORS
    | _in("models.predictors.unet", unet=("UNet", "U-Net of all frames at once, which reads covariates"))
    | _in("models.predictors.predformer", predformer=("PredFormer", "gated transformers (Tang et al., 2024)"))
    | _in("models.predictors.wast", wast=("WaST", "wavelet spatio-temporal blocks (Nie et al., 2024)"))
    | _in("models.predictors.met2net", met2net=("Met2Net.of", "an encoder for each variable (Li et al., 2025)"))
    | _in("models.predictors.recurrent.convlstm", convlstm=("ConvLSTM", "convolutional LSTM (Shi et al., 2015)"))
    | _in("models.predictors.recurrent.predrnn", predrnn=("PredRNN", "spatio-temporal LSTM (Wang et al., 2017)"))
    | _in("models.predictors.recurrent.predrnnpp", predrnnpp=("PredRNNpp", "causal LSTM (Wang et al., 2018)"))
    | _in("models.predictors.recurrent.predrnn", predrnnv2=("PredRNNv2", "decoupled memories (Wang et al., 2022)"))
    | _in("models.predictors.recurrent.mim", mim=("MIM", "memory in memory (Wang et al., 2019)"))
    | _in("models.predictors.recurrent.e3dlstm", e3dlstm=("E3DLSTM", "eidetic 3D LSTM (Wang et al., 2019)"))
    | _in("models.predictors.recurrent.phydnet", phydnet=("PhyDNet", "physics and residual (Le Guen and Thome, 2020)"))
    | _in("models.predictors.recurrent.mau", mau=("MAU", "motion-aware unit (Chang et al., 2021)"))
    | _in("models.predictors.recurrent.prednet", prednet=("PredNet", "predictive coding (Lotter et al., 2017)"))
    | _in("models.predictors.dmvfn", dmvfn=("DMVFN", "dynamic multi-scale voxel flow (Hu et al., 2023)"))
    | _in(
        "models.predictors.carry",
        carry=("Carry", "Gaussians that carry the optical flow along"),
        carry__dense=("CarryDense", "control of carry without Gaussians, of its size"),
        carry__grid=("CarryGrid", "control of carry whose Gaussians have fixed places and shapes"),
    )
    | LATENT
    | _in("models.predictors.none", none=("AnchorAlone", "no network: the anchor's forecast")),
)

ANCHORS = Family(
    "anchors",
    "anchor",
    "--anchor",
    _in(
        "models.anchors.simple",
        none=("without", "frames instead of changes"),
        auto=("unresolved", "ridge for weather and traffic, flow for video"),
        persistence=("Persistence", "the last observed frame"),
        climatology=("Climatology", "mean of the training data at that hour, day of week and season"),
        anomaly=("Anomaly", "climatology and a fitted share of the last departure from it"),
    )
    | _in(
        "models.anchors.ridge", ridge=("Ridge", "linear regression of departures on frames, earlier cycles, patterns")
    )
    | _in("models.anchors.flow", flow=("FlowAnchor", "the last frame moved along its optical flow, which slows down")),
    open=False,
)

ADAPTERS = Family(
    "adapters",
    "adapter",
    "--adapter",
    _in(
        "models.gaussians.predgs", flatten=("PredGS", "PredGS, the paper's: Gaussians from the pooled, flattened frame")
    )
    | _in("models.gaussians.local", local=("LocalGS", "Gaussians anchored at the cells of a convolutional map"))
    | _in(
        "models.gaussians.control",
        mlp=("MLPControl", "control without Gaussians, of the size of flatten"),
        conv=("ConvControl", "control without Gaussians, of the size of local"),
    ),
)

FUSIONS = Family(
    "fusions",
    "fusion",
    "--fusion",
    _in(
        "models.fusion",
        concat=("ConcatFusion", "1x1 convolution of both, the paper's"),
        gated=("GatedFusion", "coarse forecast + gate x Gaussian layer"),
        add=("AddFusion", "sum of both"),
        gs=("RenderedFusion", "the Gaussian layer alone"),
        none=("NoFusion", "the predictor alone"),
    ),
)

INITIALIZATIONS = Family(
    "initializations",
    "initialisation",
    "model.init",
    _in(
        "models.gaussians.initialization",
        grid=("grid", "even grid"),
        corner=("corner", "corners of a training frame"),
        color=("color", "brightest pixels of a training frame"),
        random=("random", "uniformly random"),
        none=("none", "wherever the first weights of the network put them"),
    ),
    open=False,
)

LOSSES = Family(
    "losses",
    "loss",
    "--loss",
    _in(
        "training.losses",
        l1ssim=("L1SSIM", "lambda L1 + (1 - lambda)(1 - SSIM), the paper's"),
        l1=("L1", "mean absolute error"),
        ssim=("SSIM", "1 - SSIM"),
        mse=("MSE", "mean squared error"),
        crps=("CRPS", "CRPS of members (train.members), of one forecast l1"),
        l2reg=("L2Reg", "mean squared error and TAU's divergence of differences"),
    ),
)

SCHEDULES = Family(
    "schedules",
    "schedule",
    "train.schedule",
    _in(
        "training.schedule",
        onecycle=("OneCycle", "rises for 30 % of the run, then falls"),
        cosine=("Cosine", "falls as half a cosine, after a warm-up"),
        constant=("Constant", "stays, after a warm-up"),
    ),
    open=False,
)

BASELINES = Family(
    "baselines",
    "baseline",
    "--against",
    _in(
        "verification.baselines",
        persistence=("persistence", "the last observed frame"),
        climatology=("climatology", "mean of the training data at that hour, day and season"),
        anomaly=("anomaly", "climatology and a share of the last departure from it, fitted in training"),
        ridge=("ridge", "linear regression of departures from the climatology, fitted in training"),
        yesterday=("yesterday", "the frame of the same hour, a day or more before"),
        last__week=("last_week", "the frame of the same hour and weekday, a week or more before"),
        trend=("trend", "the line through the observed frames"),
        flow=("flow", "the last frame moved along its optical flow"),
        damped__flow=("damped_flow", "the last frame moved along its optical flow, which slows down"),
        dressed=("dressed", "members: the first model's forecast and draws of its validation errors"),
    ),
    error=UsageError,
)

ABLATIONS = Family(
    "ablations",
    "ablation",
    "--ablation",
    _in(
        "ablation.catalogue",
        loss=("loss", "loss by module (Table 5)"),
        init=("init", "where Gaussians start (Table 8)"),
        fusion=("fusion", "how forecast and Gaussians are combined (Table 8)"),
        **{"lambda": ("l1_weight", "share of L1 in the loss (Table 8)")},
        gaussians=("gaussians", "number of Gaussians (Table 6)"),
        kernel=("kernel", "kernel size (Table 7)"),
        downsample=("downsample", "pooling rate and width of the MLPs (Table 6)"),
        adapter=("adapter", "adapters beside their controls without Gaussians"),
        backbones=("backbones", "predictors, each alone and with PDR (Table 4)"),
        choices=("choices", "what the paper leaves open"),
        predictive=("predictive", "latents with and without the predictive objective"),
    ),
    error=UsageError,
)

SCORES = Family(
    "scores",
    "score",
    "--metrics",
    _in(
        "verification.scores",
        mse=("MSE", "mean squared error"),
        rmse=("RMSE", "root mean squared error"),
        mae=("MAE", "mean absolute error"),
        bias=("BIAS", "mean error"),
        acc=("ACC", "anomaly correlation"),
        mse_lat=("MSE_LAT", "mean squared error, weighted by area"),
        rmse_lat=("RMSE_LAT", "root mean squared error, weighted by area"),
        mae_lat=("MAE_LAT", "mean absolute error, weighted by area"),
        bias_lat=("BIAS_LAT", "mean error, weighted by area"),
        psnr=("PSNR", "peak signal-to-noise ratio"),
        ssim=("SSIM", "structural similarity"),
        lpips=("LPIPS", "perceptual distance"),
        crps=("CRPS", "CRPS of members, of one forecast mae"),
        crps_lat=("CRPS_LAT", "CRPS, weighted by area"),
        energy=("ENERGY", "energy score of whole fields"),
        spread_skill=("SPREAD_SKILL", "spread of members over their mean's error"),
        coverage=("COVERAGE", "truths between the 10 % and 90 % quantiles of members"),
        best_rmse=("BEST_RMSE", "rmse of the best member of each window"),
        best_psnr=("BEST_PSNR", "psnr of the best member of each window"),
    ),
    error=UsageError,
)
# The same names as OpenSTL defines them; scores of packages serve both conventions.
OPENSTL_SCORES = Family(
    "scores",
    "score",
    "--metrics",
    _in(
        "verification.scores",
        mse=("OPENSTL_MSE", "squared error, summed over a frame"),
        mae=("OPENSTL_MAE", "absolute error, summed over a frame"),
        rmse=("OPENSTL_RMSE", "root of mse"),
        ssim=("OPENSTL_SSIM", "structural similarity, uniform window, range 2"),
        psnr=("OPENSTL_PSNR", "peak signal-to-noise ratio, peak 1"),
        snr=("OPENSTL_SNR", "signal-to-noise ratio"),
        lpips=("LPIPS", "perceptual distance"),
    ),
    error=UsageError,
)
SCORES_BY_CONVENTION = {"standard": SCORES, "openstl": OPENSTL_SCORES}

FORMATS = Family(
    "formats",
    "format",
    "",
    _in("data.formats.remote", remote=("Remote", "URLs of Zarr stores and files of fields, with the extra remote"))
    | _in("data.formats.netcdf", netcdf=("NetCDF", "NetCDF files of fields"))
    | _in("data.formats.zarr", zarr=("Zarr", "Zarr stores of fields"))
    | _in("data.formats.grib", grib=("GRIB", "GRIB 1 and 2 files of fields, with the extra grib"))
    | _in("data.formats.zipped", zarr__zip=("ZippedZarr", "Zarr stores in a ZIP archive"))
    | _in("data.formats.compressed", compressed=("Compressed", "files of fields behind gzip, bzip2 or xz"))
    | _in("data.formats.scenefile", scenes=("Scenes", "HDF5 files of scenes with their depths and cameras"))
    | _in("data.formats.hdf5", hdf5=("HDF5", "HDF5 files of traffic grids, in the layout of TaxiBJ"))
    | _in("data.formats.human36m", windows=("WindowLists", "lists of windows beside pictures, as Human3.6M"))
    | _in("data.formats.npz", npz=("NPZ", "windows cut beforehand, as OpenSTL's dataset.npz"))
    | _in("data.formats.video", video=("Video", "clips: MP4, MOV, AVI, MKV, WebM, MPEG, WMV, FLV, Ogg, GIF, ..."))
    | _in("data.formats.frames", frames=("Frames", "folders of numbered pictures, and single ones")),
)

FAMILIES = (PREDICTORS, ADAPTERS, FUSIONS, INITIALIZATIONS, LOSSES, SCHEDULES, SCORES, BASELINES, FORMATS, ABLATIONS)


def others(model: ModelConfig) -> dict[str, str]:
    """The `module:Name` of each part of a network that is not ours, by the name that the [model] table gives it."""
    parts = ((PREDICTORS, model.backbone), (ADAPTERS, model.adapter), (FUSIONS, model.fusion))
    return {name: place for family, name in parts if (place := family.place(name)) is not None}


def sources(model: ModelConfig) -> dict[str, str]:
    """SHA-256 of the source of each of `others`, which is read and not imported."""
    return {name: source_sha256(module_of(place)) for name, place in others(model).items()}
