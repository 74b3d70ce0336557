#!/bin/sh
# From nothing to a forecast: sample data, training, forecast, scores, pictures. Run by `make demo`.
set -eu
out=${1:-demo}
rm -rf "$out"
mkdir -p "$out"
cd "$out"

pdr sample weather -o sample.nc
pdr train --preset demo --data sample.nc -o run
# The test period begins after what training and validation have used; this init lies inside it.
pdr predict sample.nc -m run -o forecast.nc --init 2013-12-18T00:00 --preview forecast.png
pdr evaluate sample.nc -m run -o scores.json --report report.html
pdr export -m run --input sample.nc --init 2013-12-18T00:00 -o layers.png

cat <<END

$out/forecast.nc   the forecast, CF NetCDF        (ncdump -h $out/forecast.nc)
$out/forecast.png  forecast, truth and error      (look at this one)
$out/layers.png    coarse forecast, Gaussians, and both together
$out/report.html   how good it is, beside persistence and climatology: scores, intervals, the best and the worst forecast
$out/scores.json   the scores as numbers
$out/run/          the run: README.md (its card), config.toml, model.safetensors, metrics.jsonl, curves.png
END
