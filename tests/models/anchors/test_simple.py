"""Anchors of few numbers, and what every anchor shares."""

from __future__ import annotations

import pytest
import torch

from pdr_cli.models.anchors.simple import Anomaly, Climatology, Persistence
from pdr_cli.models.interfaces import Anchor, Batch, Context, Frames
from tests.models.builders import options

FRAMES = Frames(2, 1, (3, 4), out_steps=2)


def context(steps: int = 2) -> Context:
    """A climatology that is 10, 11, 12, ... at the times of a window."""
    return Context(normal=(10.0 + torch.arange(2 + steps))[None, :, None, None, None].expand(1, -1, 1, 3, 4))


def seen(last: float) -> torch.Tensor:
    return torch.tensor([0.0, last])[None, :, None, None, None].expand(1, -1, 1, 3, 4)


def values(frames: torch.Tensor) -> list[float]:
    return [round(v, 5) for v in frames[0, :, 0, 0, 0].tolist()]


def test_persistence_is_the_last_frame_for_any_number_of_steps() -> None:
    assert values(Persistence(FRAMES)(seen(7), 5, Context())) == [7] * 5


def test_climatology_is_that_of_the_forecast_times() -> None:
    assert values(Climatology(FRAMES)(seen(7), 3, context(3))) == [12, 13, 14]


def test_an_anomaly_keeps_the_share_of_each_lead() -> None:
    anchor = Anomaly(FRAMES)
    anchor.share.copy_(torch.tensor([[0.5], [0.25]]))
    assert values(anchor(seen(15), 2, context())) == [14, 14]  # 12 and 13, and shares of 4


def test_beyond_its_leads_an_anchor_is_fed_its_own_forecast() -> None:
    anchor = Anomaly(FRAMES)
    anchor.share.copy_(torch.tensor([[0.5], [0.25]]))
    # The second pass starts from 14 where the climatology is 13: a departure of 1.
    assert values(anchor(seen(15), 4, context(4))) == [14, 14, 14.5, 15.25]


@pytest.mark.parametrize("anchor", [Anomaly(FRAMES), Climatology(FRAMES)])
def test_departures_need_a_climatology(anchor: Anchor) -> None:
    with pytest.raises(ValueError, match="normal"):
        anchor(seen(1), 2, Context())


def test_a_network_forecasts_the_change_from_its_anchor_and_without_one_the_anchor() -> None:
    from pdr_cli.models import registry

    network = registry.build(options(backbone="none", anchor="anomaly", fusion="none"), FRAMES)
    assert sum(p.numel() for p in network.parameters()) == 0
    network.anchor.share.fill_(1)
    batch = Batch(seen(15), 2, normal=context().normal)
    assert values(network(batch).fused) == values(network(batch, "anchor").fused) == [16, 17]


def test_predictors_can_run_on_anomalies_and_their_silence_is_the_anchor() -> None:
    from pdr_cli.models import registry

    frames = Frames(2, 1, (8, 8), out_steps=2)
    network = registry.build(options(backbone="tau", anchor="persistence", fusion="none", inputs="anomalies"), frames)
    network.anomalies.spread.fill_(3)
    for parameter in network.predictor.dec.readout.parameters():
        torch.nn.init.zeros_(parameter)
    x, normal = torch.rand(2, 2, 1, 8, 8), torch.rand(2, 7, 1, 8, 8)
    made = network(Batch(x, 5, normal=normal)).fused
    assert torch.allclose(made, x[:, -1:].expand_as(made), atol=1e-5)


def test_the_output_on_anomalies_is_in_units_of_their_spread() -> None:
    from pdr_cli.models import registry

    frames = Frames(2, 1, (8, 8), out_steps=2)
    network = registry.build(options(backbone="tau", anchor="climatology", fusion="none", inputs="anomalies"), frames)
    network.anomalies.spread.fill_(3)
    readout = network.predictor.dec.readout
    torch.nn.init.zeros_(readout.weight)
    torch.nn.init.ones_(readout.bias)
    normal = torch.rand(1, 4, 1, 8, 8)
    made = network(Batch(torch.rand(1, 2, 1, 8, 8), 2, normal=normal)).fused
    assert torch.allclose(made, normal[:, 2:] + 3, atol=1e-5)
