import math

import numpy as np
import pytest

from pdr_cli.verification.document import Document
from pdr_cli.verification.evaluation import Result


def document(headline: str, higher_is_better: list[str]) -> Document:
    """A document without forecasters."""
    about = ("K", ["t2m"], "standard", "honest", "test", 6, "6 clips", [1.0], "hours")
    return Document(*about, [headline], {}, higher_is_better, {}, {}, {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ("rmse", {"best": 3, "median": 0, "worst": 1}),  # 1, 2, 4, 5, 9 and one that is not known
        ("psnr", {"best": 1, "median": 0, "worst": 3}),
    ],
)
def test_typical_windows_are_the_best_the_median_and_the_worst(headline: str, expected: dict[str, int]) -> None:
    by_window = np.array([4.0, 9.0, math.nan, 1.0, 2.0, 5.0])
    assert Result(document(headline, ["psnr"]), by_window).typical() == expected


def test_a_bias_is_best_where_it_is_smallest() -> None:
    assert Result(document("bias", []), np.array([-9.0, 0.5, 2.0])).typical() == {"best": 1, "median": 2, "worst": 0}


def test_without_a_known_score_there_are_none() -> None:
    assert Result(document("acc", ["acc"]), np.array([math.nan])).typical() == {}
