"""What `thumbwheel doctor` looks at. Each check returns its finding; none raises for what it is there to find."""

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from confluent_kafka import KafkaException

from infra.cli.errors import shown
from infra.cli.options import Place
from infra.local import broker, ports
from infra.local.topics import describe_topics
from infra.models.catalog import NAMED
from infra.settings import ROOT
from schemas import tables
from schemas.errors import ThumbwheelError
from schemas.topics import plan

ESSENTIAL = {
    "streams": ("confluent-kafka", "deltalake", "polars", "pyarrow", "faust-streaming"),
    "serving": ("fastapi", "uvicorn", "torch", "transformers", "peft", "safetensors"),
    "infra": ("typer", "rich", "httpx", "psutil", "matplotlib", "jinja2", "gguf", "pydantic-settings"),
}
GIB = 1 << 30


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One finding, and how to mend it."""

    subject: str
    grade: Grade
    found: str
    mend: str = ""


def all_checks(place: Place, *, gateway_port: int) -> Iterator[Check]:
    """Every check, in the order in which to mend."""
    yield python_version(sys.version_info[:2])
    yield installed_packages()
    yield pins(read_pins(ROOT / "constraints.txt"))
    yield embedded_broker()
    yield from log(place)
    yield lake(place.data / "lake")
    yield from (model(name, place.models) for name in NAMED)
    yield port(gateway_port, place)
    yield disk(place.data)
    yield memory()


def python_version(found: tuple[int, int]) -> Check:
    """3.11 is what is tested; older ones lack the syntax."""
    text = f"{found[0]}.{found[1]} ({platform.machine()}, {platform.system()})"
    if found < (3, 11):
        return Check("python", Grade.FAIL, text, "install Python 3.11, remove .venv, and run `make setup`")
    if found > (3, 11):
        return Check("python", Grade.WARN, text, "tested with 3.11; the pins may not install on others")
    return Check("python", Grade.OK, text)


def installed_packages() -> Check:
    """Whether what each service needs is installed."""
    missing = [name for names in ESSENTIAL.values() for name in names if _version(name) is None]
    if missing:
        return Check("packages", Grade.FAIL, f"missing: {', '.join(missing)}", "run `make setup`")
    return Check("packages", Grade.OK, f"torch {_version('torch')}, transformers {_version('transformers')}, "
                 f"deltalake {_version('deltalake')}, confluent-kafka {_version('confluent-kafka')}")  # fmt: skip


def read_pins(path: Path) -> dict[str, str]:
    """Package -> version of a constraints file; empty where there is none."""
    if not path.is_file():
        return {}
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {name: pinned for name, mark, pinned in (line.partition("==") for line in lines) if mark}


def pins(pinned: Mapping[str, str]) -> Check:
    """Whether what is installed is what was tested together."""
    if not pinned:
        return Check("pins", Grade.WARN, "no constraints.txt here", "call it from a checkout to compare versions")
    found = {name: _version(name) for name in pinned}
    other = [f"{name} {v} (pinned {pinned[name]})" for name, v in found.items() if v and _plain(v) != pinned[name]]
    if other:
        return Check("pins", Grade.WARN, f"not as pinned: {', '.join(other[:5])}", "run `make clean setup`")
    return Check("pins", Grade.OK, f"{sum(v is not None for v in found.values())} packages as pinned")


def embedded_broker() -> Check:
    """Whether the embedded broker's packages are there."""
    found = {name: _version(name) for name in ("kio", "crc32c", "cramjam")}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return Check(
            "embedded",
            Grade.WARN,
            f"no embedded broker: {', '.join(missing)} is missing",
            "run `make setup`, or use your own Kafka",
        )
    return Check("embedded", Grade.OK, "the embedded broker can be started")


def log(place: Place) -> Iterator[Check]:
    """The broker and its topics; without a broker of one's own and a running stack there is nothing to reach."""
    expected = place.named or place.gateway_url is not None
    servers = place.kafka.bootstrap_servers
    try:
        found = {t.name: t.partitions for t in describe_topics(place.kafka)} if broker.answers(servers, 3.0) else None
    except (ThumbwheelError, KafkaException) as error:
        yield Check("broker", Grade.FAIL, f"{servers}: {error}", "see the broker's own log")
        return
    if found is None and not expected:
        yield Check("broker", Grade.OK, "none runs here (`thumbwheel up` starts one)")
    elif found is None:
        yield Check("broker", Grade.FAIL, f"{servers} does not answer", "start it, or check address, SASL and TLS")
    else:
        yield Check("broker", Grade.OK, f"{servers} answers")
        yield topics(found)


def topics(found: Mapping[str, int]) -> Check:
    """Whether all topics exist, with the partitions planned. `found`: topic -> partitions."""
    wanted = {name: partitions for name, (partitions, _) in plan().items()}
    missing = sorted(set(wanted) - set(found))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return Check("topics", Grade.FAIL, f"missing: {missing[0]}{more}", "run `thumbwheel topics create`")
    other = [f"{n} has {found[n]} partitions, planned {p}" for n, p in wanted.items() if found[n] != p]
    if other:
        return Check("topics", Grade.WARN, "; ".join(other), "fine if on purpose; else recreate the topic")
    return Check("topics", Grade.OK, f"all {len(wanted)} exist")


def lake(root: Path) -> Check:
    """Whether every table that exists opens."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    rows, broken = dict[str, int](), list[str]()
    for table in tables.ALL:
        if not (root / table.path).exists():
            continue
        try:
            rows[table.name] = DeltaTable(str(root / table.path)).count()
        except (DeltaError, OSError) as error:
            broken.append(f"{table.path}: {str(error).splitlines()[0][:120]}")
    if broken:
        mend = f"restore it from a copy; a silver or gold table may be removed from {shown(root)} and is rebuilt"
        return Check("tables", Grade.FAIL, "; ".join(broken), mend)
    if not rows:
        return Check("tables", Grade.OK, f"none yet in {shown(root)}")
    return Check("tables", Grade.OK, f"{len(rows)} open, {sum(rows.values()):,} rows in {shown(root)}")


def model(name: str, models: Path) -> Check:
    """Whether a named base model is prepared and its files are whole."""
    folder = models / name
    again = f"remove {shown(folder)} and run `thumbwheel models prepare {name}`"
    if not (folder / "config.json").is_file():
        return Check("model", Grade.WARN, f"{name} is not prepared", f"run `thumbwheel models prepare {name}`")
    try:
        kind = json.loads((folder / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError) as error:
        return Check("model", Grade.FAIL, f"{name}: config.json can't be read ({error})", again)
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    if not weights or not any(folder.glob("tokenizer*")):
        return Check("model", Grade.FAIL, f"{name}: weights or tokenizer are missing", again)
    return Check("model", Grade.OK, f"{name} ({kind}, {weights / 1e6:,.0f} MB) in {shown(folder)}")


def port(number: int, place: Place) -> Check:
    """Whether the gateway's port is free, or the running stack's own."""
    if place.gateway_url is not None:
        return Check("port", Grade.OK, f"a stack is up at {place.gateway_url}")
    if ports.is_free(number):
        return Check("port", Grade.OK, f"{number} is free")
    return Check("port", Grade.WARN, f"{number} is in use", "stop what listens there, or use `thumbwheel up --port N`")


def disk(data: Path) -> Check:
    """Room for tables, adapters and the broker's log."""
    existing = next(p for p in (data, *data.parents) if p.exists())
    free = shutil.disk_usage(existing).free / GIB
    text = f"{free:,.1f} GiB free for {shown(data)}"
    if free < 1:
        return Check("disk", Grade.FAIL, text, "free some space, or name a folder on another disk by --data")
    if free < 5:
        return Check("disk", Grade.WARN, text, "a demo needs about 1 GiB, the environment about 3")
    return Check("disk", Grade.OK, text)


def memory() -> Check:
    """Room for the gateway's and the trainer's model."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    text = f"{free:,.1f} GiB available, {psutil.cpu_count() or 1} cores"
    if free < 1:
        return Check("memory", Grade.FAIL, text, "close something; with --model tiny about 2 GiB are needed")
    if free < 5:
        return Check("memory", Grade.WARN, text, "a stack with smollm2 needs up to 5 GiB; close something, or use tiny")
    return Check("memory", Grade.OK, text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(found: str) -> str:
    """Without the build's own mark: `2.13.0+cpu` is 2.13.0."""
    return found.partition("+")[0]
