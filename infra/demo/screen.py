"""Where frames go: a live view on a terminal, now and then a line elsewhere."""

from typing import Self

from rich.console import Console
from rich.live import Live

from infra.demo import view
from infra.demo.state import DemoState

LINE_EVERY_SECONDS = 5.0


class Screen:
    """Shows states. Plain lines come every few seconds, and whenever the phase changes."""

    def __init__(self, console: Console, *, plain: bool) -> None:
        self._console = console
        self._live = None if plain else Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._last: DemoState | None = None

    def show(self, state: DemoState) -> None:
        """One more frame."""
        if self._live is not None:
            self._live.update(view.render(state, height=self._console.height), refresh=True)
        elif self._last is None or _worth_a_line(self._last, state):
            self._console.print(view.plain(state), markup=False, soft_wrap=True)
            self._last = state

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _worth_a_line(last: DemoState, state: DemoState) -> bool:
    return state.phase != last.phase or state.elapsed - last.elapsed >= LINE_EVERY_SECONDS
