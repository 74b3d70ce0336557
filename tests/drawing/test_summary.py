"""What an evaluation says: the right rival, honest words, aligned numbers, the best marked and chance named."""

import pytest

from pdr_cli.drawing import summary
from tests.drawing.documents import document, everything, typed


def headline_of(**skill) -> summary.Headline:
    """The headline of one model against persistence (the entry given) and an easy climatology (skill 0.9)."""
    made = document()
    made["skill"] = {"pdr": {"persistence": skill, "climatology": {"overall": 0.9}}}
    return summary.headline(typed(made))


def test_the_rival_is_the_baseline_that_is_hardest_to_beat():
    top = headline_of(overall=0.44, interval=[0.4, 0.48], significant=True)
    assert (top.model, top.rival, top.tone) == ("pdr", "persistence", "good")
    assert top.figure == "+44\u00a0%"
    assert top.label == "skill against persistence, the best of 2 baselines"
    assert top.sentence == (
        "pdr is 44\u00a0% better than persistence, the best simple forecast, by MSE (95\u00a0%:\u00a040\u00a0to\u00a048)."
    )


def test_a_model_that_is_worse_is_said_to_be_worse():
    """A skill of -0.12 is an MSE 12 % higher; the interval turns with the sign."""
    top = headline_of(overall=-0.12, interval=[-0.2, -0.05], significant=True)
    assert (top.figure, top.tone) == ("−12\u00a0%", "bad")
    assert (
        top.sentence
        == "pdr is 12\u00a0% worse than persistence, the best simple forecast, by MSE (95\u00a0%:\u00a05\u00a0to\u00a020)."
    )


@pytest.mark.parametrize(
    ("overall", "words"),
    [
        (
            0.03,
            "better than persistence, the best simple forecast: "
            "its MSE is 3.0\u00a0% lower (95\u00a0%:\u00a0−2.0\u00a0to\u00a08.0).",
        ),
        (
            -0.03,
            "worse than persistence, the best simple forecast: "
            "its MSE is 3.0\u00a0% higher (95\u00a0%:\u00a0−8.0\u00a0to\u00a02.0).",
        ),
    ],
)
def test_what_chance_may_explain_is_no_result(overall, words):
    low, high = (-0.02, 0.08)
    for tested in ({"significant": False}, {}):  # without the word, an interval that holds 0 says the same
        top = headline_of(overall=overall, interval=[low, high], **tested)
        assert top.tone == "open"
        assert top.sentence == f"pdr is not significantly {words}"


def test_without_an_interval_chance_is_not_ruled_out():
    top = headline_of(overall=0.44)
    assert top.tone == "open"
    assert (
        top.sentence
        == "pdr is 44\u00a0% better than persistence, the best simple forecast, by MSE. No interval was computed, so chance "
        "is not ruled out."
    )


def test_a_lone_baseline_is_not_called_the_best():
    made = document()
    made["skill"] = {"pdr": {"persistence": {"overall": 0.44}}}
    assert summary.headline(typed(made)).sentence.startswith("pdr is 44\u00a0% better than persistence, by MSE.")


def test_without_rivals_the_first_score_leads():
    top = summary.headline(typed(document() | {"skill": {"pdr": {}}}))
    assert top.rival is None
    assert top.figure == "2.000 K"
    assert "compared with no baseline" in top.sentence


def test_a_rival_model_is_no_baseline():
    made = document()
    made["skill"]["pdr"]["other"] = {"overall": -0.5}
    made["kinds"]["other"] = "model"
    assert typed(made).hardest_rival("pdr") == "persistence"


def test_the_best_model_leads():
    made = document()
    made["skill"] = {"weak": {"persistence": {"overall": 0.1}}, "strong": {"persistence": {"overall": 0.2}}}
    assert typed(made).champion == "strong"


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), -float("inf"), "x"])
def test_a_number_that_is_none_is_a_dash(missing):
    assert summary.number(missing, 2) == "–"
    assert summary.percent(missing) == "–"


def test_numbers_have_four_figures_and_their_points_align():
    """Of 11.45 and 2.882 the larger has four figures with two decimals; 0.0312 needs five; 12345 none."""
    assert summary.decimals([11.45, 2.882, None]) == 2
    assert summary.decimals([0.0312]) == 5
    assert summary.decimals([12345.0]) == 0
    assert summary.decimals([float("nan"), 0.0]) == 0
    assert summary.number(-1234.5, 1) == "−1,234.5"
    assert summary.number(-0.001, 2) == "0.00"  # not a negative nothing
    assert summary.number(1.5e-9, summary.decimals([1.5e-9])) == "1.500e−09"


def marks(table: summary.Table) -> dict[str, list[str]]:
    return {name: [cell.mark for cell in cells] for name, cells in table.rows}


def test_the_best_of_each_column_is_marked_in_its_own_direction():
    """RMSE: least. Bias: nearest 0, whatever its sign. SSIM: greatest."""
    made = document() | {"metrics": ["rmse", "bias", "ssim"]}
    values = {"pdr": (1.0, -0.1, 0.9), "persistence": (2.0, 0.2, 0.8), "climatology": (3.0, 0.5, 0.95)}
    made["scores"] = {
        name: {m: {"overall": v, "lead": [v, v]} for m, v in zip(made["metrics"], row, strict=True)}
        for name, row in values.items()
    }
    table = summary.score_table(typed(made))
    assert [h[0] for h in table.heads] == ["RMSE", "bias", "SSIM"]
    assert marks(table) == {
        "pdr": ["best", "best", ""],
        "persistence": ["", "", ""],
        "climatology": ["", "", "best"],
    }


def test_equal_scores_share_the_mark_and_a_lone_one_has_none():
    made = document()
    made["scores"]["persistence"]["rmse"]["overall"] = made["scores"]["pdr"]["rmse"]["overall"]
    assert [marks(summary.score_table(typed(made)))[n][0] for n in ("pdr", "persistence")] == ["best", "best"]
    made["scores"] = {"pdr": made["scores"]["pdr"]}
    assert marks(summary.score_table(typed(made)))["pdr"][0] == ""


def test_skill_that_chance_may_explain_is_marked_unsure():
    made = document()
    made["skill"] = {
        "pdr": {
            "persistence": {"overall": 0.44, "interval": [0.4, 0.48], "significant": True},
            "climatology": {"overall": 0.02, "interval": [-0.03, 0.06], "significant": False},
            "other": {"overall": None},
        }
    }
    (_, (sure, unsure, none)) = summary.skill_table(typed(made)).rows[0]
    assert sure == summary.Cell("+44", "40 to 48", "best")
    assert unsure == summary.Cell("+2.0", "−3.0 to 6.0, n.s.", "unsure")
    assert none == summary.Cell("–")


def test_channels_have_their_own_table():
    made = document()
    assert summary.channel_table(typed(made)) is None
    made["scores"]["pdr"]["rmse:inflow"] = {"overall": 5.0, "lead": [4.0, 6.0]}
    table = summary.channel_table(typed(made))
    assert [name for name, _ in table.rows] == ["RMSE of inflow [K]"]
    assert [cell.text for cell in table.rows[0][1]] == ["5.000", "–", "–"]


def test_lead_tables_hold_every_number_with_its_interval():
    table = summary.lead_tables(typed(document()))[0]
    assert [name for name, _ in table.rows] == ["6 h", "12 h", "all"]
    assert table.rows[0][1][0] == summary.Cell("1.500", "1.400 to 1.600")


def test_concentration_is_read_beside_the_truths():
    """190 levels of 200 are 5 % fewer."""
    made = document() | {"concentration": {"truth": {"diversity": 200}, "pdr": {"diversity": 190}}}
    table = summary.concentration_table(typed(made))
    assert [cells[0] for _, cells in table.rows] == [summary.Cell("200.0"), summary.Cell("190.0", "−5.0\u00a0%")]
    assert summary.warping_table(typed(made)) is None
    assert summary.efficiency_table(typed(made)) is None


def test_ways_are_beside_those_of_standing_still():
    table = summary.ways_table(typed(everything()))
    assert table.rows == [("pdr", [summary.Cell(text) for text in ("2.02", "2.44", "0.11", "3.1")])]
    assert summary.ways_table(typed(document())) is None


def test_costs_are_counts_in_full_and_rates_to_four_figures():
    table = summary.efficiency_table(
        typed(document(efficiency={"pdr": {"parameters": 1234567, "frames_per_second": 83.214}}))
    )
    assert [(name, cells[0].text) for name, cells in table.rows] == [
        ("parameters", "1,234,567"),
        ("frames per second", "83.21"),
    ]


def test_leads_are_named_in_hours_days_or_seconds():
    assert [summary.lead_label(h, "hours") for h in (6, 72, 84)] == ["6 h", "3 d", "84 h"]
    assert summary.lead_label(1 / 3, "seconds") == "0.33 s"


def test_a_model_that_is_its_rival_is_said_to_be() -> None:
    top = headline_of(overall=0.0, interval=[0.0, 0.0], significant=False)
    assert top.sentence == "pdr forecasts as persistence, the best simple forecast: no window has another MSE."
