"""RAFT-small: optical flow by iterative look-ups of all-pairs correlations (Teed & Deng, ECCV 2020)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, instance_norm, interpolate

from pdr_cli.models import pretrained
from pdr_cli.models.motion import positions, sample

FEATURES, HIDDEN, CONTEXT, MOTION = 128, 96, 64, 82
LEVELS, RADIUS = 4, 3  # the correlation pyramid, and the look-up window of 7 x 7 on each level
UPDATES = 12
STRIDE = 8  # frame cells per feature
SMALLEST = 128  # the coarsest level then has 2 x 2 features; with one it has no extent to look up in
PIECE = 8  # pairs taken at once, so that memory does not grow with the batch


class RAFT(nn.Module):
    """RAFT-small, with weights named as in the official model (without `module.`)."""

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder(FEATURES, normalised=True)
        self.cnet = Encoder(HIDDEN + CONTEXT, normalised=False)
        self.update_block = Update()

    @classmethod
    def load(cls, path: Path) -> RAFT:
        """RAFT-small with the weights of a safetensors file.

        Raises:
            InputNotFoundError, CheckpointError: see `pretrained.load`.
        """
        network = cls()
        pretrained.load(network, path, "RAFT-small")
        return network

    @torch.no_grad()
    def flow(self, a: Tensor, b: Tensor) -> Tensor:
        """Flow from a to b in cells: [n, C, H, W] twice, in [0, 1] → [n, 2, H, W].

        Three channels are red, green, blue; of any other number the mean is taken as grey. Frames are enlarged to
        sides of 128 or more, divisible by 8, and the flow is scaled back. Features are 8 cells apart: the motion of
        narrower things, such as an arm in a frame of 128 x 128, is hardly resolved.
        """
        H, W = a.shape[-2:]
        height, width = working_size(H, W)
        pieces = zip(a.split(PIECE), b.split(PIECE), strict=True)
        found = [self._flow(self._prepare(x, height, width), self._prepare(y, height, width)) for x, y in pieces]
        flow = interpolate(torch.cat(found), (H, W), mode="bilinear")
        return (flow * flow.new_tensor([W / width, H / height])[:, None, None]).to(a)

    def _prepare(self, frames: Tensor, height: int, width: int) -> Tensor:
        """[n, C, H, W] in [0, 1] → [n, 3, height, width] in [-1, 1]."""
        x = frames.to(self.fnet.conv1.weight)
        x = x if x.shape[1] == 3 else x.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        return 2 * interpolate(x, (height, width), mode="bilinear") - 1

    def _flow(self, a: Tensor, b: Tensor) -> Tensor:
        pyramid = correlations(self.fnet(a), self.fnet(b))
        hidden, context = self.cnet(a).split([HIDDEN, CONTEXT], dim=1)
        hidden, context = hidden.tanh(), context.relu()
        flow = a.new_zeros(len(a), 2, *hidden.shape[-2:])
        for _ in range(UPDATES):
            hidden, change = self.update_block(hidden, context, look_up(pyramid, flow), flow)
            flow = flow + change
        return STRIDE * interpolate(flow, scale_factor=STRIDE, mode="bilinear", align_corners=True)


def working_size(H: int, W: int) -> tuple[int, int]:
    """The size RAFT works at: both sides enlarged alike until the shorter is 128, then up to a multiple of 8."""
    factor = max(1.0, SMALLEST / min(H, W))
    return math.ceil(H * factor / STRIDE) * STRIDE, math.ceil(W * factor / STRIDE) * STRIDE


def correlations(first: Tensor, second: Tensor) -> list[Tensor]:
    """Similarity of every feature of the first frame to every one of the second, at four resolutions of the second.

    [n, D, h, w] twice → [n·h·w, 1, h/2^l, w/2^l] for l = 0..3.
    """
    n, D, h, w = first.shape
    products = first.flatten(2).transpose(1, 2) @ second.flatten(2) / math.sqrt(D)
    pyramid = [products.view(n * h * w, 1, h, w)]
    for _ in range(LEVELS - 1):
        pyramid.append(avg_pool2d(pyramid[-1], 2))
    return pyramid


def look_up(pyramid: list[Tensor], flow: Tensor) -> Tensor:
    """Correlations around where the flow points, on each level: flow [n, 2, h, w] → [n, 4 · 7 · 7, h, w]."""
    n, _, h, w = flow.shape
    x, y = positions(flow)
    steps = torch.arange(-RADIUS, RADIUS + 1).to(flow)
    out = []
    for level, correlation in enumerate(pyramid):
        # The published weights expect the window with x along its first side: [n·h·w, 7, 7].
        columns = ((x + flow[:, 0]) / 2**level).reshape(-1, 1, 1) + steps[:, None]
        rows = ((y + flow[:, 1]) / 2**level).reshape(-1, 1, 1) + steps[None, :]
        columns, rows = torch.broadcast_tensors(columns, rows)
        window = sample(correlation, columns, rows, padding="zeros")
        out.append(window.view(n, h, w, -1))
    return torch.cat(out, dim=-1).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    """Features at an eighth of the resolution: [n, 3, H, W] → [n, outputs, H/8, W/8]."""

    def __init__(self, outputs: int, normalised: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1, normalised), Bottleneck(32, 32, 1, normalised))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2, normalised), Bottleneck(64, 64, 1, normalised))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2, normalised), Bottleneck(96, 96, 1, normalised))
        self.conv2 = nn.Conv2d(96, outputs, 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = _activated(self.conv1(frames), self.normalised)
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Bottleneck(nn.Module):
    """Residual block that convolves in a quarter of its channels: [n, inputs, h, w] → [n, outputs, h/s, w/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int, normalised: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1)
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride))
        self.strided = stride > 1

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for convolution in (self.conv1, self.conv2, self.conv3):
            y = _activated(convolution(y), self.normalised)
        if self.strided:
            x = self.downsample(x)
            x = instance_norm(x) if self.normalised else x
        return torch.relu(x + y)


def _activated(x: Tensor, normalised: bool) -> Tensor:
    return torch.relu(instance_norm(x) if normalised else x)


class Update(nn.Module):
    """One step towards the flow: the new hidden state [n, 96, h, w] and the change of the flow [n, 2, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = ConvGRU(HIDDEN, CONTEXT + MOTION)
        self.flow_head = FlowHead()

    def forward(self, hidden: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        motion = self.encoder(flow, correlation)
        hidden = self.gru(hidden, torch.cat([context, motion], dim=1))
        return hidden, self.flow_head(hidden)


class MotionEncoder(nn.Module):
    """Features of the present flow and of the correlations around it: [n, 82, h, w], the flow itself at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 96, 1)
        self.convf1 = nn.Conv2d(2, 64, 7, padding=3)
        self.convf2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv = nn.Conv2d(96 + 32, MOTION - 2, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        moved = torch.relu(self.convf2(torch.relu(self.convf1(flow))))
        both = torch.cat([torch.relu(self.convc1(correlation)), moved], dim=1)
        return torch.cat([torch.relu(self.conv(both)), flow], dim=1)


class ConvGRU(nn.Module):
    """Gated recurrent unit with 3 x 3 convolutions: state [n, hidden, h, w], input [n, inputs, h, w] → new state."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convr = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convq = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)

    def forward(self, state: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([state, x], dim=1)
        update, reset = torch.sigmoid(self.convz(both)), torch.sigmoid(self.convr(both))
        proposal = torch.tanh(self.convq(torch.cat([reset * state, x], dim=1)))
        return (1 - update) * state + update * proposal


class FlowHead(nn.Module):
    """[n, 96, h, w] → the change of the flow, [n, 2, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.conv1(hidden)))
