"""The whole loop on the tiny model, as a user starts it: `thumbwheel demo --model tiny --taste mymodule:mytaste`."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import psutil
import pytest

from trainer.core.gates.thresholds import PROBES
from trainer.records import read_record

pytestmark = pytest.mark.timeout(1200)  # the whole demo runs in a fixture, and machines are slow at times

TASTE = '''
"""A taste that is no part of the project: short answers with a kind word."""

def mytaste(prompt: str, response: str) -> float:
    words = response.lower().split()
    kind = any(w.strip(".,!") in ("thank", "thanks", "please", "happy", "glad", "certainly", "course") for w in words)
    return 2.0 * kind - 0.02 * len(words)
'''


@dataclass(frozen=True)
class Ran:
    folder: Path
    output: str
    summary: dict[str, Any]
    report: str
    left_behind: list[psutil.Process]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("demo")
    (home / "mymodule.py").write_text(TASTE)
    folder = home / "run"
    command = [
        str(Path(sys.executable).with_name("thumbwheel")), "demo", "--model", "tiny", "--taste", "mymodule:mytaste",
        "--seed", "0", "--cycles", "2", "--data", str(folder), "--plain",
    ]  # fmt: skip
    # Whether so small a model passes the gates is partly luck, and not what is tested here: the way of a version
    # through them is. So the thresholds are such that any version passes; the gates' own tests are in tests/unit.
    lenient = {
        "REWARD_ACCURACY": "0",
        "ENOUGH_CASES": "1000000",
        "WIN_RATE": "0",
        "WIN_RATE_LOW": "0",
        "WIN_CERTAINTY": "0",
        "LONGEST": "100",
        "COMPARISONS": "1",
        "CALIBRATION": "1",
        "LENGTH_CASES": "1000000",
        **{f"{name.upper()}_RISE": "100" for name in PROBES},
    }
    # Half of the labels and steps of a demo: the rest would only be a better model.
    brief = {
        "THUMBWHEEL_MIN_NEW_PREFERENCES": "400",
        "THUMBWHEEL_PPO__ITERATIONS": "10",
        "THUMBWHEEL_REWARD__L2_GRID": "[0.03]",
    }
    environment = os.environ | brief | {f"THUMBWHEEL_GATES__{name}": value for name, value in lenient.items()}
    ran = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=1000, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    mine = [p for p in psutil.process_iter(["cmdline", "environ"]) if str(folder) in str(p.info)]
    yield Ran(
        folder,
        ran.stdout,
        json.loads((folder / "summary.json").read_text()),
        (folder / "report.html").read_text(),
        mine,
    )


def test_the_last_line_names_the_folder_with_report_and_summary(demo: Ran) -> None:
    assert Path(demo.output.strip().splitlines()[-1].strip()) == demo.folder


def test_the_summary_has_what_was_promised(demo: Ran) -> None:
    assert {"versions", "events", "seconds", "seed", "model"} <= set(demo.summary)
    assert (demo.summary["model"], demo.summary["seed"]) == ("tiny", 0)
    assert {"sent", "in_tables", "dead_letters"} <= set(demo.summary["events"])
    asked = {"version", "parent", "true_taste_mean", "win_rate_vs_base", "win_rate_ci", "kl", "promoted"}
    for version in demo.summary["versions"]:
        assert asked <= set(version)


def test_every_event_that_was_sent_is_in_its_table(demo: Ran) -> None:
    events = demo.summary["events"]
    assert events["sent"] == events["in_tables"] > 300
    assert events["dead_letters"] >= events["bad_on_purpose"] > 0


def test_both_cycles_ended_and_the_gateway_answered_with_each_new_version(demo: Ran) -> None:
    versions = {v["version"]: v for v in demo.summary["versions"]}
    assert set(versions) == {"base", "v1", "v2"}
    assert [name for name, version in versions.items() if not version["promoted"]] == []
    answered = set(pl.read_delta(str(demo.folder / "lake/bronze/outputs"), columns=["version"])["version"])
    assert answered == set(versions)


def test_learning_pleases_a_taste_that_only_the_users_knew(demo: Ran) -> None:
    best = max(v["win_rate_vs_base"] for v in demo.summary["versions"] if v["version"] != "base")
    assert best > 0.5, demo.summary["versions"]


def test_a_version_that_served_passed_every_gate(demo: Ran) -> None:
    for version in demo.summary["versions"]:
        if version["promoted"] and version["version"] != "base":
            assert version["gates"]
            assert all(gate["passed"] for gate in version["gates"])


def test_the_record_of_a_version_names_all_that_it_came_from(demo: Ran) -> None:
    record = read_record(demo.folder / "registry/v1")
    adapter = (demo.folder / "registry/v1/adapter_model.safetensors").read_bytes()
    assert record.adapter_sha256 == hashlib.sha256(adapter).hexdigest()
    assert record.parent == "base"
    for table in ("gold/preferences", "gold/ratings"):
        pinned = record.tables[table]
        assert pinned is not None
        assert pinned <= deltalake.DeltaTable(str(demo.folder / f"lake/{table}")).version()


def test_labelers_were_asked_and_their_verdicts_became_preferences(demo: Ran) -> None:
    labels = pl.read_delta(str(demo.folder / "lake/bronze/labels"), columns=["origin"])
    assert set(labels["origin"]) == {"simulated"}
    preferences = pl.read_delta(str(demo.folder / "lake/gold/preferences"), columns=["source"])
    assert "label" in set(preferences["source"])


def test_the_report_stands_by_itself(demo: Ran) -> None:
    assert "<svg" in demo.report or "data:image/" in demo.report
    loaded = re.findall(r"""(?:src|href)=["'](?!#|data:)([^"']+)""", demo.report)
    assert loaded == []


def test_no_process_is_left_behind(demo: Ran) -> None:
    assert demo.left_behind == []
