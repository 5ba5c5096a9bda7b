"""The terminal: a frame as a function of a `DemoState`, and one plain line for where there is no terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from infra.demo.state import CycleView, DemoState, Rate, Said
from schemas.cycles import CycleStatus, Stage

BAR = 28
_FIXED_LINES = 20
"""Lines of a frame without those of its versions and answers: header, and panels with their frames."""
STAGES = {
    Stage.PIN: "pin tables",
    Stage.REWARD_MODEL: "reward model",
    Stage.POLICY: "policy (PPO)",
    Stage.EVALUATE: "evaluate",
    Stage.REGISTER: "register",
    Stage.SCORE: "score",
}
ENDED = {
    CycleStatus.FINISHED: "finished",
    CycleStatus.REFUSED: "did not pass its gates",
    CycleStatus.FAILED: "failed",
    CycleStatus.AWAITING_APPROVAL: "waits for an approval",
}
UP, DOWN, DIM, LIVE = "green", "red", "bright_black", "bold cyan"


def render(state: DemoState, *, height: int = 100) -> RenderableType:
    """One frame: the loop from left to right and from top to bottom, as an event travels.

    On a screen of few lines the last answers are the first to be left out.
    """
    room = height - _FIXED_LINES - len(state.rates or (1,)) - len(state.versions or (1,))
    return Group(
        _header(state),
        _beside(_events(state), _tables(state)),
        _thumbs(state),
        _cycle(state),
        _versions(state),
        *([_answers(state.said[:room])] if room > 0 else []),
    )


def plain(state: DemoState) -> str:
    """One line without colour."""
    parts = [
        f"{clock(state.elapsed)}  {state.phase}",
        f"{state.answers} answers",
        f"{state.feedback} feedback",
        f"{sum(state.tables.values())} rows",
        f"{state.dead_letters} dead letters",
        f"cycles {state.cycles_ended}/{state.cycles_wanted}",
    ]
    if state.cycle and state.cycle.running and state.cycle.stage:
        parts.append(f"{STAGES[state.cycle.stage]} {state.cycle.fraction:.0%}{_figures(state.cycle, ', ')}")
    parts.append(f"serving {state.serving or 'nothing yet'}")
    parts += [f"{r.version} {r.share:.0%} up" for r in state.rates if r.share is not None]
    return " | ".join(parts)


def clock(seconds: float) -> str:
    """Minutes and seconds, as `3:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _header(state: DemoState) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column()
    line.add_column(justify="right")
    left = Text.assemble(("Thumbwheel ", "bold"), (f" {state.phase} ", "reverse"))
    right = f"{state.model} · seed {state.seed} · cycle {state.cycles_ended} of {state.cycles_wanted} done · "
    line.add_row(left, Text.assemble(right, (clock(state.elapsed), "bold")))
    return line


def _beside(left: Panel, right: Panel) -> Table:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=3)
    grid.add_column(ratio=2)
    grid.add_row(left, right)
    return grid


def _events(state: DemoState) -> Panel:
    grid = _grid("sent by users", "on the log")
    for label, sent, topic in (
        ("answers", state.answers, "outputs"),
        ("feedback", state.feedback, "feedback"),
        ("labels", state.labels, "labels"),
    ):
        grid.add_row(label, f"{sent:,}", f"{state.topics.get(topic, 0):,}")
    grid.add_row("preferences", "", f"{state.topics.get('preferences', 0):,}")
    on_purpose = f" {state.bad_on_purpose} bad on purpose" if state.bad_on_purpose else ""
    style = "yellow" if state.dead_letters else DIM
    grid.add_row(Text("dead letters", style=style), Text(on_purpose.strip(), style=DIM), f"{state.dead_letters:,}")
    trouble = [f"{state.retries} retries"] * bool(state.retries) + [f"{state.restarts} restarts"] * bool(state.restarts)
    return _panel("events", grid, ", ".join(trouble))


def _tables(state: DemoState) -> Panel:
    grid = _grid("rows")
    for name in ("outputs", "feedback", "responses", "ratings", "preferences"):
        grid.add_row(name, f"{state.tables.get(name, 0):,}")
    return _panel("Delta tables", grid)


def _thumbs(state: DemoState) -> Panel:
    grid = Table.grid(padding=(0, 2))
    for rate in state.rates:
        grid.add_row(*_rate_row(rate, rate.version == state.serving))
    if not state.rates:
        grid.add_row(Text("the first answers are only read: users learn what to expect", style=DIM))
    return _panel("thumbs by version", grid)


def _rate_row(rate: Rate, serving: bool) -> tuple[RenderableType, ...]:
    name = Text(rate.version, style=LIVE if serving else "bold")
    if rate.share is None:
        return name, Text(" " * BAR), Text("no thumbs yet", style=DIM), Text(f"{rate.answers:,} answers", style=DIM)
    ups = round(rate.share * BAR)
    bar = Text.assemble(("█" * ups, UP), ("█" * (BAR - ups), DOWN))
    counts = Text.assemble((f"{rate.up:,} up", UP), " / ", (f"{rate.down:,} down", DOWN))
    return name, bar, Text(f"{rate.share:.0%} up", style="bold"), counts, Text(f"{rate.answers:,} answers", style=DIM)


def _cycle(state: DemoState) -> Panel:
    if state.task:
        label, done = state.task
        return _panel("after the last cycle", _progress(label, done))
    cycle = state.cycle
    if cycle is None:
        return _panel("update cycle", Text("waiting for enough new preferences", style=DIM))
    title = f"update cycle {cycle.number}"
    if not cycle.running:
        verdict = f"{cycle.version or cycle.cycle_id}: {ENDED[cycle.status]} after {clock(cycle.seconds)}"
        colour = UP if cycle.status is CycleStatus.FINISHED else "yellow"
        return _panel(title, Group(Text(verdict, style=colour), Text(cycle.reason or _rest(state), style=DIM)))
    stage = cycle.stage or Stage.PIN
    return _panel(title, Group(_steps(stage), _progress(STAGES[stage], cycle.fraction, _figures(cycle, "   "))))


def _rest(state: DemoState) -> str:
    return "" if state.cycles_ended >= state.cycles_wanted else "waiting for enough new preferences"


def _steps(current: Stage) -> Text:
    """The stages in order: those done, the one that runs, those to come."""
    order, text = list(Stage), Text()
    for stage in order:
        position = order.index(stage) - order.index(current)
        mark, style = ("✓", UP) if position < 0 else ("●", "bold") if position == 0 else ("○", DIM)
        text.append(f"{mark} {STAGES[stage]}   ", style=style)
    return text


def _progress(label: str, fraction: float, note: str = "") -> Table:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=min(max(fraction, 0.0), 1.0), width=BAR + 12)
    grid.add_row(label, bar, f"{fraction:.0%}", Text(note.strip(", "), style=DIM))
    return grid


def _figures(cycle: CycleView, separator: str) -> str:
    shown = [f"{name} {cycle.metrics[name]:.2f}" for name in ("reward", "kl", "accuracy") if name in cycle.metrics]
    return "".join(separator + text for text in shown)


def _versions(state: DemoState) -> Panel:
    grid = Table.grid(padding=(0, 2))
    for v in state.versions:
        live = v.version == state.serving
        mark = Text("▶ serving" if live else v.state.replace("_", " "), style=LIVE if live else DIM)
        kl = f"KL {v.kl:.2f} nats" if v.kl is not None else ""
        win = f"judge {v.win_rate:.0%} over its parent" if v.win_rate is not None else ""
        grid.add_row(Text(v.version, style=LIVE if live else "bold"), mark, kl, win)
    if not state.versions:
        grid.add_row(Text("none yet", style=DIM))
    return _panel("versions", grid)


def _answers(said: tuple[Said, ...]) -> Panel:
    grid = Table(box=None, show_header=False, expand=True, padding=(0, 1))
    grid.add_column(width=2)
    grid.add_column(width=5, style=DIM, no_wrap=True)
    grid.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    for one in said:
        mark = {1: Text("+", style=f"bold {UP}"), -1: Text("-", style=f"bold {DOWN}"), None: Text("·", style=DIM)}
        grid.add_row(mark[one.thumb], one.version, Text(one.prompt, style=DIM), Text(" ".join(one.text.split())))
    return _panel("last answers", grid)


def _grid(*numbers: str) -> Table:
    grid = Table(box=None, padding=(0, 1), expand=True, header_style=DIM)
    grid.add_column("")
    for name in numbers:
        grid.add_column(name, justify="right")
    return grid


def _panel(title: str, body: RenderableType, note: str = "") -> Panel:
    subtitle = Text(note, style="yellow") if note else None
    return Panel(
        body, title=Text(title, style="bold"), title_align="left", subtitle=subtitle, box=box.ROUNDED, border_style=DIM
    )
