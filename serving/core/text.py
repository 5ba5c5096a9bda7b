"""From token ids to text that can be sent at once: whole characters only, and no part of a stop string."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Incremental detokenization of one answer.

    A token can end in the middle of a UTF-8 character, and a tokenizer may write a token differently after
    another one. So each new stretch is decoded together with the one before it, and nothing is released while
    the end is an unfinished character.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._context = 0  # ids before this one no longer matter for the next stretch
        self._released = 0  # ids before this one are in the text already

    def push(self, token: int) -> str:
        """The text that this token completes; often empty in the middle of a character."""
        self._ids.append(token)
        known, whole = self._known_and_whole()
        if whole.endswith(REPLACEMENT) or len(whole) <= len(known):
            return ""
        self._context, self._released = self._released, len(self._ids)
        return whole[len(known) :]

    def finish(self) -> str:
        """What was still held back, without the unfinished character at its end."""
        known, whole = self._known_and_whole()
        self._context = self._released = len(self._ids)
        return whole[len(known) :].rstrip(REPLACEMENT)

    def _known_and_whole(self) -> tuple[str, str]:
        known = self._decode(self._ids[self._context : self._released])
        return known, self._decode(self._ids[self._context :])


class StopFilter:
    """Cuts the text at the first stop string, and holds back what could be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held: str = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """What may be sent now. Once `stopped`, nothing more comes."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out not to be a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest proper beginning of `stop` that ends `text`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
