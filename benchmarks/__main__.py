"""The one way of running a benchmark.

python -m benchmarks                      list them
python -m benchmarks batching             run one: a table on the terminal
python -m benchmarks batching --json F    and its result as JSON in F
"""

import argparse
import importlib
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

BENCHMARKS = {
    "batching": "tokens/s of the gateway's engine with concurrent requests, against one request at a time",
    "broker": "records/s through the embedded broker, and what it costs when idle, against noida-db",
    "feedback": "requests/s of POST /v1/feedback, acknowledged by the broker, against a handler that does only that",
    "sink": "events/s of ingest (validated, exactly once, in Delta), against a raw consume loop, quixstreams and faust",
    "ppo": "CPU seconds and memory of a PPO update with its rollout, against TRL's PPOTrainer",
    "cycle": "CPU seconds of an update cycle over ten times the history, against one over the labels it learns from",
    "reward": "pairs per CPU second of training a reward model, against TRL's RewardTrainer",
    "freshness": "seconds from an event's produce to its row's being readable, at 2,000 events/s, against the target",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmark, or list them all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measured comparisons, one at a time.")
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="which one; without it they are listed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write name, ratios and details there as well")
    parser.add_argument("--millions", type=float, metavar="N", help="broker only: records before its memory is read")
    parser.add_argument("--commits", type=int, metavar="N", help="sink only: commits whose time must stay flat")
    chosen = parser.parse_args(arguments)
    if chosen.millions is not None and chosen.name != "broker":
        parser.error("--millions is an option of the benchmark `broker`")
    if chosen.commits is not None and chosen.name != "sink":
        parser.error("--commits is an option of the benchmark `sink`")
    if chosen.name is None:
        for name, says in BENCHMARKS.items():
            print(f"  {name:10} {says}")
        return 0
    given = {"millions": chosen.millions, "commits": chosen.commits}
    options = {name: value for name, value in given.items() if value is not None}
    result: Result = importlib.import_module(f"benchmarks.{chosen.name}").run(**options)
    _show(result)
    if chosen.json:
        result.write(chosen.json)
    return 0


def _show(result: Result) -> None:
    table = Table("figure", "value", title=f"{result.name}: {BENCHMARKS[result.name]}")
    for name, ratio in result.ratios.items():
        table.add_row(f"[bold]{name}[/bold] (ratio)", f"[bold]{ratio:.2f}[/bold]")
    for name, value in result.details.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
