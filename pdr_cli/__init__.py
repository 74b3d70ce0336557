"""pdr: forecasts of weather fields, traffic grids and video by Predictive Differentiable Rendering.

`pdr_cli.load("runs/a").predict(xr.open_dataset("input.nc"))` gives the same numbers as `pdr predict`.
"""

__version__ = "0.1.0"
