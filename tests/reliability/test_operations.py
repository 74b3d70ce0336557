"""docs/operations.md does what it says: its files are taken out of the page and run."""

import getpass
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from pdr_cli.splat import build
from tests.cli import pdr

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "operations.md").read_text(), flags=re.MULTILINE | re.DOTALL
)


def block(language: str, holds: str = "") -> str:
    """The one block of the page in this language that holds these words."""
    (found,) = [text for name, text in BLOCKS if name == language and holds in text]
    return found


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Site:
    """A folder as the page has it, and a shell with as little in its environment as cron gives."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder = folder
        for name in ("bin", "incoming", "out", "refused", "runs"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(run, folder / "runs" / "air-2025-12")
        (folder / "runs" / "air").symlink_to("air-2025-12")
        # The renderer is built already, as after the first forecast; HOME has no cache of it.
        variables = f'PYTHONPATH="{ROOT}" OMP_NUM_THREADS=1 {build.CACHE_ENVIRONMENT}="{build.cache_folder()}"'
        script(folder / "bin" / "pdr", f'#!/bin/sh\n{variables} exec "{sys.executable}" -m pdr_cli "$@"\n')
        for name in ("nightly", "watch"):
            script(folder / name, self.here(block("sh", f"# {name}\n")))
        self.environment = {
            "HOME": str(folder),
            "SHELL": "/bin/sh",
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "PAUSE": "1",
        }

    def here(self, text: str) -> str:
        return text.replace("/srv/forecast", str(self.folder)).replace("/opt/pdr/bin", f"{self.folder}/bin")

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        how = {"env": self.environment, "cwd": self.folder, "capture_output": True, "text": True, "timeout": 300}
        return subprocess.run(["/bin/sh", "-c", command], check=False, **how)  # type: ignore[call-overload, no-any-return]

    def cron(self) -> subprocess.CompletedProcess[str]:
        """What cron does with the crontab of the page."""
        lines = self.here(block("crontab")).splitlines()
        (job,) = (line for line in lines if re.match(r"[\d*]", line))
        self.environment |= dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
        *when, command = job.split(None, 5)
        assert all(re.fullmatch(r"\*|\d+(,\d+)*", field) for field in when)
        assert not re.search(r"(?<!\\)%", command), "cron takes this for a line break"
        return self.shell(command.replace(r"\%", "%"))

    def watch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([self.folder / "watch"], env=self.environment, cwd="/", start_new_session=True)

    def failures(self) -> list[int]:
        lines = (self.folder / "predict.jsonl").read_text().splitlines()
        return [entry["code"] for entry in map(json.loads, lines) if "code" in entry]

    def made(self) -> list[str]:
        return [line.split()[0] for line in (self.folder / "made.log").read_text().splitlines()]


def stop(watch: subprocess.Popen[bytes]) -> None:
    """The loop and the forecast that it is at, killed."""
    os.killpg(watch.pid, signal.SIGKILL)
    watch.wait()


def until(true: Callable[[], object]) -> None:
    for _ in range(2400):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("two minutes have passed")


@pytest.fixture
def site(tmp_path: Path, weather_run: Path) -> Site:
    return Site(tmp_path / "site", weather_run)


def test_the_crontab_makes_a_forecast_once_and_mails_what_fails(site: Site, weather: Path) -> None:
    shutil.copy(weather, site.folder / "incoming" / "air.nc")
    old = site.folder / "out" / "forecast-2020-01-01.nc"
    old.touch()
    os.utime(old, (0, 0))
    for _ in range(2):
        done = site.cron()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "up to date" in (site.folder / "made.log").read_text().splitlines()[1]
    assert not old.exists()
    with xr.open_dataset(weather) as given, xr.open_dataset(site.folder / "out" / "latest.nc") as made:
        assert made.forecast_reference_time.values == given.time.values[-1]
    fresh = site.here(block("sh", "# fresh"))
    assert site.shell(fresh).returncode == 0
    os.utime(site.folder / "out" / "latest.nc", (0, 0))
    assert site.shell(fresh).returncode != 0
    (site.folder / "incoming" / "air.nc").unlink()
    mailed = json.loads(site.cron().stdout)
    assert (mailed["code"], mailed["name"]) == (66, "E_NOT_FOUND")


@pytest.mark.parametrize(("shell", "text"), [(name, text) for name, text in BLOCKS if name in ("sh", "bash")])
def test_every_script_is_one(shell: str, text: str) -> None:
    done = subprocess.run([needs(shell), "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_link_turns_production_over_to_another_model(site: Site) -> None:
    shutil.copytree(site.folder / "runs" / "air-2025-12", site.folder / "runs" / "air-2026-01")
    done = site.shell(block("sh", "# swap"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (site.folder / "runs" / "air").readlink() == Path("air-2026-01")


def test_the_loop_goes_by_exit_codes(site: Site) -> None:
    # Stands in for pdr: `predict NEW -o MADE ...`
    script(
        site.folder / "bin" / "pdr",
        """#!/bin/sh
echo "$2 $*" >> calls
case $2 in
    */damaged.nc) exit 65 ;;
    */late.nc) test -e ready || exit 75 ;;
esac
: > "$4"
""",
    )
    for name in ("damaged", "late", "whole"):
        (site.folder / "incoming" / f"{name}.nc").touch()
    os.utime(site.folder / "incoming" / "damaged.nc", (0, 0))
    watch = site.watch()
    try:
        until((site.folder / "out" / "whole.nc").exists)
        assert (site.folder / "refused" / "damaged.nc").exists(), "its turn was before"
        assert not (site.folder / "out" / "late.nc").exists()
        (site.folder / "ready").touch()
        until((site.folder / "out" / "late.nc").exists)
    finally:
        stop(watch)
    calls = [line.split() for line in (site.folder / "calls").read_text().splitlines()]
    assert [words[0] for words in calls] == [f"incoming/{n}.nc" for n in ("damaged", "late", "whole", "late")]
    waits = {words[0]: words[words.index("--wait-input") + 1] for words in calls}
    assert (waits["incoming/damaged.nc"], waits["incoming/late.nc"]) == ("0", "20")


@pytest.mark.slow
def test_each_new_file_has_its_turn_and_a_damaged_one_is_put_aside(site: Site, weather: Path) -> None:
    damaged = site.folder / "incoming" / "damaged.nc"
    damaged.write_bytes(weather.read_bytes()[:5000])
    os.utime(damaged, (0, 0))  # nobody is writing it
    watch = site.watch()
    try:
        until((site.folder / "refused" / "damaged.nc").exists)
        shutil.copy(weather, site.folder / "incoming" / ".coming.nc")
        (site.folder / "incoming" / ".coming.nc").rename(site.folder / "incoming" / "whole.nc")
        until((site.folder / "out" / "whole.nc").exists)
        until(lambda: site.made() == ["out/whole.nc"])
    finally:
        stop(watch)
    assert site.failures() == [65]


@pytest.mark.slow
@pytest.mark.parametrize("inotify", [True, False])
def test_a_file_that_comes_slowly_and_a_kill_leave_one_whole_forecast(site: Site, weather: Path, inotify: bool) -> None:
    if not inotify:  # a PATH with all that the loop needs, but for inotifywait
        for name in ("dirname", "find", "mv", "sleep"):
            (site.folder / "bin" / name).symlink_to(shutil.which(name) or name)
        site.environment["PATH"] = f"{site.folder}/bin"
    content, coming = weather.read_bytes(), site.folder / "incoming" / "a.nc"
    watch = site.watch()
    with coming.open("wb") as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        until(lambda: list((site.folder / "out").glob(".a.nc.*")))
        stop(watch)
        watch = site.watch()
        for byte in range(len(content) // 2, len(content), len(content) // 8):
            time.sleep(0.5)
            assert not (site.folder / "out" / "a.nc").exists()
            stream.write(content[byte : byte + len(content) // 8])
            stream.flush()
    until(lambda: (site.folder / "made.log").exists() and site.made())
    stop(watch)
    watch = site.watch()
    time.sleep(3)  # for a pass that finds nothing to do
    stop(watch)
    assert site.made() == ["out/a.nc"]
    assert [p.name for p in (site.folder / "out").iterdir()] == ["a.nc"], "what the kill left is gone"
    assert pdr("verify", site.folder / "out" / "a.nc").code == 0


def test_anything_that_is_not_a_files_fault_ends_the_loop(site: Site, weather: Path) -> None:
    shutil.copy(weather, site.folder / "incoming" / "a.nc")
    (site.folder / "runs" / "air").unlink()
    assert site.watch().wait(timeout=120) == 66
    assert (site.folder / "incoming" / "a.nc").is_file()


def test_the_loop_ends_with_its_folder(site: Site) -> None:
    (site.folder / "incoming").rmdir()
    assert site.watch().wait(timeout=120) == 66


@pytest.mark.parametrize("kind", ["[Service]", "[Timer]"])
def test_systemd_takes_the_units(site: Site, kind: str) -> None:
    analyze = needs("systemd-analyze")
    unit = site.folder / f"pdr-predict.{kind.strip('[]').lower()}"
    unit.write_text(site.here(block("ini", kind)))
    (site.folder / "pdr-predict.service").write_text(site.here(block("ini", "[Service]")))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pdr-predict" not in done.stderr, done.stderr


def test_systemd_reads_the_calendar() -> None:
    (when,) = re.findall("^OnCalendar=(.*)$", block("ini", "[Timer]"), flags=re.MULTILINE)
    done = subprocess.run([needs("systemd-analyze"), "calendar", when], capture_output=True, text=True, check=False)
    assert (done.returncode, "00:40:00 UTC" in done.stdout) == (0, True), done.stderr


def test_logs_are_rotated(site: Site) -> None:
    logrotate = needs("logrotate")
    for name in ("predict.jsonl", "made.log"):
        (site.folder / name).write_text("a line\n")
    settings = site.folder / "pdr.conf"
    whose = (getpass.getuser(), site.folder.group())
    settings.write_text(site.here(block("logrotate")).replace("su forecast forecast", f"su {' '.join(whose)}"))
    command = [logrotate, "--force", "--state", str(site.folder / "state"), str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in site.folder.glob("*.gz")) == ["made.log.1.gz", "predict.jsonl.1.gz"]


def test_the_example_of_a_failure_is_one() -> None:
    Path("incoming").mkdir()
    example, line = (
        json.loads(block("json")),
        json.loads(pdr("predict", "incoming/air.nc", "-o", "f.nc", "--log-json").last),
    )
    assert line == example | {"time": line["time"]}
    assert time.strptime(line["time"], "%Y-%m-%dT%H:%M:%SZ")


def test_failures_are_picked_from_a_log(site: Site) -> None:
    needs("jq")
    (site.folder / "predict.jsonl").write_text(
        'a warning of a library\n{"level": "info", "message": "x"}\n' + block("json")
    )
    done = site.shell(block("sh", "# failures"))
    assert done.stdout.split("\t")[:3] == ["2026-01-31T00:40:02Z", "66", "E_NOT_FOUND"], done.stderr
