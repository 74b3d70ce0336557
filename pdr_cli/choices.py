"""Everything that is chosen by name: predictors, anchors, adapters, fusions, losses, scores, formats and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdr_cli.errors import UsageError
from pdr_cli.families import Choice, Family
from pdr_cli.trust import module_of, source_sha256

if TYPE_CHECKING:
    from pdr_cli.schema import ModelConfig


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
    | _in(
        "models.predictors.deformable",
        deformable=("Deformable", "Gaussians that move, turn and fade, and paint the change"),
        deformable__still=("DeformableStill", "control of deformable whose Gaussians stand still"),
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
        "models.gaussians.deform",
        deform=("DeformGS", "one set of Gaussians that moves through all frames"),
        deform__dense=("DeformDense", "control of deform with fusion carry, without Gaussians, of its size"),
    )
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
        carry=("CarryFusion", "the last frame where Gaussians carry it, by adapter deform"),
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

LOGGERS = Family(
    "loggers",
    "logger",
    "--logger",
    _in("training.tensorboard", tensorboard=("TensorBoard", "events of TensorBoard, with the extra tensorboard")),
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
        moving=("moving", "Gaussians that move, beside their controls"),
        predictive=("predictive", "latents with and without the predictive objective"),
        scenes=("scenes", "moving scenes without each part of their training"),
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

FAMILIES = (
    PREDICTORS, ADAPTERS, FUSIONS, INITIALIZATIONS, LOSSES, SCHEDULES, LOGGERS, SCORES, BASELINES, FORMATS, ABLATIONS,
)  # fmt: skip


def others(model: ModelConfig) -> dict[str, str]:
    """The `module:Name` of each part of a network that is not ours, by the name that the [model] table gives it."""
    parts = ((PREDICTORS, model.backbone), (ADAPTERS, model.adapter), (FUSIONS, model.fusion))
    return {name: place for family, name in parts if (place := family.place(name)) is not None}


def sources(model: ModelConfig) -> dict[str, str]:
    """SHA-256 of the source of each of `others`, which is read and not imported."""
    return {name: source_sha256(module_of(place)) for name, place in others(model).items()}
