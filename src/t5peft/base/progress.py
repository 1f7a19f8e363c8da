"""Progress of long work: a bar on a terminal, a plain line every few seconds anywhere else.

What is at work tells so by itself, work that counts nothing too: the innermost of what is open.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from threading import Thread
from typing import ClassVar

from tqdm import tqdm

from t5peft.base import machine

SECONDS = 5.0
LOOKS = 10
"""How often in that time it is looked whether something has been said."""


class Progress:
    """Counts reviews towards `total`, or tells a `state`, under a title; `note` ends the line."""

    open: ClassVar[list[Progress]] = []
    said = 0.0  # when something last was

    def __init__(
        self, title: str, total: int = 0, state: Callable[[], str] = lambda: "at work"
    ) -> None:
        self.title, self.total, self.state = title, total, state
        self.done, self.note, self.began = 0, "", time.perf_counter()
        self.bar: tqdm[None] | None = None

    def __enter__(self) -> Progress:
        if not Progress.open:
            Progress.said = time.perf_counter()
        Progress.open.append(self)
        start()
        if self.total:
            self.draw()
        return self

    def __exit__(self, *_: object) -> None:
        Progress.open.remove(self)
        if self.bar is not None:
            self.bar.close()

    def add(self, reviews: int, note: str = "") -> None:
        """So many more are done, as far as there are that many."""
        reviews, self.note = min(reviews, self.total - self.done), note
        self.done += reviews
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(reviews)

    def draw(self) -> None:
        """The bar, where there is a terminal."""
        if sys.stderr.isatty() and self.bar is None:
            kind = {"total": self.total, "unit": "review"}
            waiting = {"bar_format": "{desc}{postfix}", "leave": False}
            self.bar = tqdm(desc=self.title, **(kind if self.total else waiting))

    def tell(self) -> None:
        """The line, or the bar anew."""
        self.draw()
        if self.bar is not None:
            self.bar.set_postfix_str(self.note if self.total else self.waited())
        else:
            say(f"{self.title}: {self.counted() if self.total else self.waited()}")

    def counted(self) -> str:
        """How many are done, how fast, and how long the rest takes."""
        told = f"{self.done:,} of {self.total:,} reviews"
        if self.done:
            speed = self.done / (time.perf_counter() - self.began)
            pace = f"{speed:,.0f}" if speed > 10 else f"{speed:.2g}"
            told += f", {pace}/s, {(self.total - self.done) / speed:,.0f} s left  {self.note}"
        return told

    def waited(self) -> str:
        """How far it is, and for how long it has been at work."""
        return f"{self.state()}, {time.perf_counter() - self.began:.0f} s"


def say(line: str) -> None:
    """Print a line on standard error, whole."""
    Progress.said = time.perf_counter()
    print(f"{line.rstrip()}\n", end="", file=sys.stderr, flush=True)


@cache
def start() -> None:
    """Begin to tell, once a process."""
    Thread(target=tell, daemon=True).start()


def tell() -> None:
    """For ever: let the innermost tell where nothing has been said for a while."""
    while True:
        time.sleep(SECONDS / LOOKS)
        at_work = Progress.open[-1:] if machine.is_main_process() else ()
        for each in at_work:
            if time.perf_counter() - Progress.said >= SECONDS or each.bar is not None:
                each.tell()
