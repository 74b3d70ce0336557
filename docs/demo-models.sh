#!/bin/sh
# Makes the models that come with pdr anew, demo:weather, demo:traffic and demo:video: sh docs/demo-models.sh AIR.nc FOLDER
# AIR.nc is the NCEP/NCAR reanalysis of air temperature of 2013 over North America, 6-hourly, 2.5 degrees (public domain).
set -eu
air=$(realpath "$1")
models=$(realpath "$(dirname "$0")/../pdr_cli/demo")
mkdir -p "$2" && cd "$2"
ln -sf "$air" ncep_air_2013.nc

# Three frames and fewer channels than the preset has, so that the file is smaller than 3 MB.
pdr train --preset weather-small --data ncep_air_2013.nc --var air \
  --set in_steps=3 --set hid_s=20 --set hid_t=40 -o weather
pdr sample traffic -o city.h5 --seed 1
pdr train --preset traffic-small --data city.h5 -o traffic
mkdir -p clips
for seed in 1 2 3 4 5 6 7 8 9 10 11 12; do pdr sample video -o "clips/$seed.mp4" --seed "$seed"; done
pdr train --preset video-small --data clips -o video

synthetic="Its data are synthetic, made by \`pdr sample\`."
for name in weather traffic video; do
  mkdir -p "$models/$name"
  before=$(sha256sum < "$name/model.safetensors" | cut -d" " -f1)
  cp "$name/model.safetensors" "$models/$name/"
  python -c "from pathlib import Path; from pdr_cli.runs import modelfile
modelfile.leave_folders_out(Path('$models/$name/model.safetensors'))"
  after=$(sha256sum < "$models/$name/model.safetensors" | cut -d" " -f1)
  case $name in
    weather) origin="Its data are NCEP/NCAR reanalysis of 2013, in the public domain." ;;
    *) origin=$synthetic ;;
  esac
  sed "s|-m $name|-m demo:$name|; s|^# $name\$|# demo:$name\n\n$origin|; s|$before|$after|" "$name/README.md" > "$models/$name/README.md"
done
