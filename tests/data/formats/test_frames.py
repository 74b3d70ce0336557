import shutil
from pathlib import Path

import numpy as np
import pytest

from pdr_cli.data import formats, times
from pdr_cli.data.formats import ReadOptions, frames
from pdr_cli.data.seen import identities
from pdr_cli.data.series import names, read_frames, size
from pdr_cli.errors import DataError, GridError, InputNotFoundError
from pdr_cli.system.hashes import sha256
from tests.builders import kth_folder, moving_square, picture

COLOURS = np.stack([np.full((6, 8), level, np.uint8) for level in (200, 100, 50)], axis=-1)


def test_a_number_left_out_is_a_gap(tmp_path: Path) -> None:
    series = frames.read(kth_folder(tmp_path, "person01_walking_d1", [1, 2, 3, 7, 8, 9, 10]))
    # 25 frames a second: number 7 is at 7 / 25 s.
    assert np.allclose(series.time.values, np.array([1, 2, 3, 7, 8, 9, 10]) / 25)
    assert times.segments(series.time.values, times.find_step(series.time.values)) == [(0, 3), (3, 7)]
    assert (series.attrs["kind"], size(series), names(series)) == ("video", (24, 32), ["gray"])
    assert np.array_equal(read_frames(series, 3, 4)[0, 0], moving_square(7))


def test_gray_is_the_red_of_kth_and_the_luminance_of_others(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 200
    for folder in ("person01_boxing_d1_uncomp", "own"):
        for number in (1, 2):
            picture(tmp_path / folder / f"image_{number:04d}.png", pixels)
    assert read_frames(frames.read(tmp_path / "person01_boxing_d1_uncomp"), 0, 1).max() == 200
    # ITU-R 601: 0.299 of red, 59.8.
    assert read_frames(frames.read(tmp_path / "own"), 0, 1).max() == 60
    assert read_frames(frames.read(tmp_path / "own", ReadOptions(color="rgb")), 0, 1)[0, :, 0, 0].tolist() == [
        200,
        0,
        0,
    ]


def test_resizing_samples_bilinearly_at_pixel_centres(tmp_path: Path) -> None:
    columns = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    for number in (1, 2):
        picture(tmp_path / "clip" / f"{number}.png", columns)
    series = frames.read(tmp_path / "clip", ReadOptions(size=(8, 12)))
    # Column j of 12 lies at (j + 0.5) * 16 / 12 - 0.5 of 16, where the ramp is ten times that: 1.67, 15, 28.3, ...
    expected = 10 * ((np.arange(12) + 0.5) * 16 / 12 - 0.5)
    assert np.allclose(read_frames(series, 0, 1)[0, 0], expected, atol=1e-3)


def test_pictures_of_two_sizes_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "clip" / "1.png", np.zeros((8, 8), np.uint8))
    picture(tmp_path / "clip" / "2.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(GridError, match=r"2\.png is 8 x 9, others are 8 x 8"):
        read_frames(frames.read(tmp_path / "clip"), 0, 2)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    folder = kth_folder(tmp_path, "person01_walking_d1", range(1, 5))
    whole = (folder / "image_0003.png").read_bytes()
    (folder / "image_0003.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"image_0003\.png"):
        read_frames(frames.read(folder), 0, 4)
    (folder / "image_0001.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image_0001\.png \(10 bytes\)"):
        frames.read(folder)


def test_two_pictures_of_one_number_are_refused(tmp_path: Path) -> None:
    folder = kth_folder(tmp_path, "person01_walking_d1", range(1, 5))
    kth_folder(tmp_path, "person01_walking_d1", [3], "jpg")
    with pytest.raises(DataError, match="two pictures numbered 3"):
        frames.read(folder)


def test_a_copied_folder_keeps_its_identity_and_a_changed_one_does_not(tmp_path: Path) -> None:
    folder = kth_folder(tmp_path / "a", "person01_walking_d1", range(1, 5))
    shutil.copytree(folder, tmp_path / "b" / folder.name)
    copy = frames.read(tmp_path / "b" / folder.name)
    assert identities([copy], sha256) == identities([frames.read(folder)], sha256)
    (tmp_path / "b" / folder.name / "image_0004.png").unlink()
    assert identities([frames.read(tmp_path / "b" / folder.name)], sha256) != identities([copy], sha256)


def test_a_folder_without_pictures_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="without numbered pictures"):
        formats.open_series([tmp_path / "empty"])


def test_pictures_may_be_numbered_in_brackets_and_their_rate_is_said(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        picture(tmp_path / "clip" / f"frame ({number}).png", moving_square(number))
    (series,) = formats.open_series(formats.find_inputs([tmp_path]))
    assert np.allclose(series.time.values, np.array([1, 2, 10]) / 25)
    assert series.attrs["assumed"] == ("pictures have no times: 25 frames a second are assumed",)


def test_a_folder_of_other_pictures_names_what_is_read(tmp_path: Path) -> None:
    for number in (1, 2):
        picture(tmp_path / f"{number}.tif", moving_square(number))
    with pytest.raises(InputNotFoundError, match=r"2 of \.tif; expected .*0001\.png.*mogrify -format png \*\.tif"):
        formats.find_inputs([tmp_path])


def single(path: Path, **options: object) -> np.ndarray:
    """The frame [C, H, W] of a picture that is an input by itself."""
    (series,) = formats.open_series(formats.find_inputs([path]), ReadOptions(**options))  # type: ignore[arg-type]
    assert (series.attrs["kind"], series.time.values.tolist()) == ("video", [0.0])
    return read_frames(series, 0, 1)[0]


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "IMG_0001.JPG", "0001.png", "photo"])
def test_a_picture_by_itself_is_one_frame_at_time_0(tmp_path: Path, name: str) -> None:
    """Its content decides, not its name."""
    picture(tmp_path / "made" / "a.png", COLOURS).rename(tmp_path / name)
    assert formats.detect(tmp_path / name) == "frames"
    assert np.array_equal(single(tmp_path / name, color="rgb"), np.moveaxis(COLOURS, -1, 0))
    assert single(tmp_path / name, color="rgb", size=(3, 4)).shape == (3, 3, 4)


def saved(path: Path, mode: str, **how: object) -> Path:
    from PIL import Image

    made = Image.fromarray(COLOURS)
    (made.quantize(4) if mode == "P" else made.convert(mode)).save(path, **how)
    return path


def test_pictures_of_other_modes_are_read_as_a_viewer_shows_them(tmp_path: Path) -> None:
    from PIL import Image

    expected = np.moveaxis(COLOURS, -1, 0)
    for name, mode in (("palette.png", "P"), ("opaque.png", "RGBA"), ("inks.jpg", "CMYK"), ("coded.jpg", "YCbCr")):
        # JPEG rounds by 2 levels.
        found = single(saved(tmp_path / name, mode), color="rgb")
        assert np.abs(found - expected).max() <= (2 if name.endswith(".jpg") else 0), name
    Image.fromarray(np.full((6, 8), 257 * 200, np.uint16)).save(tmp_path / "deep.png")
    assert (single(tmp_path / "deep.png") == 200).all()
    assert (single(tmp_path / "deep.png", color="rgb", gray_to_rgb=True) == 200).all()


@pytest.mark.parametrize(
    ("name", "mode", "how", "what"),
    [
        ("gray.png", "L", {}, "is gray .* expected red, green and blue; --gray-to-rgb"),
        ("gray.jpg", "L", {}, "is gray"),
        ("clear.png", "P", {"transparency": bytes(256)}, "is transparent"),
        ("turned.jpg", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}, "to be shown turned"),
    ],
)  # fmt: skip
def test_pictures_that_leave_something_open_are_refused(
    tmp_path: Path, name: str, mode: str, how: dict[str, object], what: str
) -> None:
    path = saved(tmp_path / name, mode, **how)
    with pytest.raises(DataError, match=what):
        single(path, color="rgb")


def test_a_damaged_picture_by_itself_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        path = picture(tmp_path / name, np.tile(COLOURS, (40, 40, 1)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=name):
            single(path, color="rgb")


def test_several_pictures_by_themselves_are_not_a_clip(tmp_path: Path) -> None:
    """As a shell expands `clip/*.png`."""
    files = [picture(tmp_path / "clip" / f"{number}.png", moving_square(number)) for number in (1, 2)]
    with pytest.raises(DataError, match=r"1\.png is one of 2 inputs; .*; name the folder: .*clip$"):
        formats.open_series(files)
    assert len(formats.open_series(formats.find_inputs([tmp_path / "clip"]))[0].time) == 2
