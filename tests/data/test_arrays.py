import pytest

from pdr_cli.data.arrays import Conventions, Slots
from pdr_cli.errors import UsageError


def test_a_day_of_slots_is_named_by_its_first_and_last() -> None:
    assert Slots.parse("0-23") == Slots(24, 0)
    assert Slots.parse("1-48") == Slots(48, 1)
    assert (str(Slots(48, 1)), Slots(48, 1).minutes, Slots(48, 1).last) == ("1-48", 30, 48)


@pytest.mark.parametrize("text", ["24", "0-24", "2-25", "5-4", "a-b", ""])
def test_slots_that_are_not_a_day_are_refused(text: str) -> None:
    # 0 to 24 are 25 slots, which do not divide 1440 minutes.
    with pytest.raises(UsageError, match="such as 0-23, 1-24 or 1-48"):
        Conventions.parse([f"slots={text}"])


@pytest.mark.parametrize("text", ["values=counted", "order=CHW", "counts"])
def test_unknown_conventions_are_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--assume {text} is not known; expected .*values=-1..1 or 0..1 or counts"):
        Conventions.parse([text])


def test_conventions_are_written_as_they_are_read() -> None:
    words = ("slots=0-23", "values=counts", "axes=channels-last", "parts=none")
    assert Conventions.parse(words).words() == words


def test_a_model_knows_the_number_of_slots_by_its_step() -> None:
    assert Conventions.of({}, 30).per_day == 48
    assert Conventions.of({"slots": "0-23"}, 60) == Conventions(Slots(24, 0), per_day=24)
    assert Conventions.of({}, 7).per_day == 0, "steps of 7 min do not divide a day"
    assert Conventions.of({"later": "x"}, 60).per_day == 24, "a convention of a later version is left out"
