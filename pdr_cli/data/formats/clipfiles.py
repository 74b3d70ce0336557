"""MP4 and GIF files of forecasts, and the description that pdr puts into them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pdr_cli.data.formats import decoding, rates
from pdr_cli.data.formats.clips import OURS, PICTURES, claims
from pdr_cli.errors import DataError

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext

DRAWN = "pdr_drawn"  # attribute of a drawing of a forecast: the variables of the forecast
CRF = "18"  # x264's "visually lossless"


def description(path: Path) -> str:
    """The description of a clip: the `pdr_` part of its provenance as JSON, if pdr wrote it."""
    if path.suffix.lower() != ".gif":
        with decoding.opened(path) as (container, _):  # of which no frame is decoded
            return str(container.metadata.get("description", ""))
    import imageio.v3 as iio

    try:
        text = iio.immeta(path, plugin="pillow").get("comment", "")
    except Exception as error:  # of the library, for a file of another format
        raise DataError(f"{path} ({path.stat().st_size} bytes) has no description that can be read: {error}") from error
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def drawn(path: Path) -> str:
    """The variables of the forecast that a clip is a drawing of; empty for pictures."""
    try:
        return str(claims(description(path)).get(DRAWN, ""))
    except DataError:
        return ""


def described(provenance: Mapping[str, str]) -> str:
    """The description that a clip of this provenance gets."""
    return json.dumps({k: v for k, v in provenance.items() if k.startswith("pdr_")})


def write_gif(frames: np.ndarray, path: Path, step: float, provenance: Mapping[str, str]) -> None:
    """Write frames [T, H, W, 3] of 8 bits, each for `step` seconds to the hundredth, all together to the hundredth."""
    import imageio.v3 as iio

    # Repeated frames must stay frames: the GIF writer would otherwise merge them and shorten the clip.
    iio.imwrite(
        path, frames, plugin="pillow", extension=".gif", duration=rates.gif_delays(len(frames), step), loop=0,
        optimize=False, comment=described(provenance),
    )  # fmt: skip


def write_mp4(
    frames: np.ndarray, path: Path, rate: Fraction, aspect: tuple[int, int], provenance: Mapping[str, str]
) -> None:
    """Write frames [T, H, W, 3] of 8 bits as H.264.

    Odd sizes are written as yuv444p, which needs no even sides; nothing is resized.

    Args:
        frames: to write.
        path: file to create.
        rate: frames a second.
        aspect: width and height of a pixel.
        provenance: of which the description holds the `pdr_` part.
    """
    import av

    even = frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
    with av.open(os.path.abspath(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": CRF})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = OURS[0] if even else OURS[1]
        if aspect != (1, 1):
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        packets = [p for f in frames for p in stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))]
        packets += stream.encode()
        # The description of a clip is written with its first packet.
        out.metadata["title"] = provenance.get("title", "")
        out.metadata["comment"] = provenance.get("source", "")
        out.metadata["description"] = described(
            {**provenance, PICTURES: _decoded_sha256(stream.codec_context, packets)}
        )
        out.mux(packets)


def _decoded_sha256(encoder: VideoCodecContext, packets: Sequence[Packet]) -> str:
    """SHA-256 of the decoded pictures, which H.264 defines to the last bit."""
    import av

    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.extradata
    digest = hashlib.sha256()
    for packet in (*packets, None):
        for frame in decoder.decode(packet):
            digest.update(frame.to_ndarray().tobytes())
    return digest.hexdigest()
