import json
import logging

import pytest

from pdr_cli.system import logs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    return now


def lines_of_a_job(seconds: float, clock: list[float], capsys: pytest.CaptureFixture[str]) -> list[str]:
    logs.setup(quiet=False, verbose=False, as_json=False)
    bar = logs.Progress("training")
    for i in range(1, 1001):
        clock[0] = seconds * i / 1000
        bar.update(i / 1000)
    return capsys.readouterr().err.splitlines()


def test_a_job_of_minutes_reports_every_tenth(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of_a_job(200, clock, capsys)
    assert [line.split()[1] for line in lines] == [str(10 * i) for i in range(1, 11)]


def test_a_long_job_reports_every_half_minute(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    # An hour has 120 half minutes; each tenth of it falls on one of them, or within its distance.
    assert 115 <= len(lines_of_a_job(3600, clock, capsys)) <= 125


def test_a_job_of_a_second_reports_its_end_only(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of_a_job(0.9, clock, capsys) == ["training 100 %"]


def test_quiet_json_and_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(quiet=True, verbose=False, as_json=False)
    logs.log.info("nothing")
    logs.log.error("trouble")
    assert capsys.readouterr().err == "error: trouble\n"
    logs.setup(quiet=False, verbose=False, as_json=True)
    logs.log.error("trouble", extra={"fields": {"code": 65}})
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"], line["code"]) == ("error", "trouble", 65)
    assert logs.log.level == logging.INFO
