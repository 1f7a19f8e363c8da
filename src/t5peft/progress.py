"""Progress of long work: a bar on a terminal, a plain line every few seconds anywhere else."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS = 5.0


class Progress:
    """Counts reviews towards `total` under a title; `note` stands at the end of the line."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.began = self.told = time.perf_counter()
        self.bar = tqdm(total=total, desc=title, unit="review") if sys.stderr.isatty() else None

    def add(self, reviews: int, note: str = "") -> None:
        """So many more are done, as far as there are that many."""
        reviews = min(reviews, self.total - self.done)
        self.done += reviews
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(reviews)
        elif now - self.told > SECONDS:
            self.told = now
            speed = self.done / (now - self.began)
            left = (self.total - self.done) / speed
            print(
                f"{self.title}: {self.done:,} of {self.total:,} reviews, {speed:.0f}/s, "
                f"{left:.0f} s left  {note}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the line as it is."""
        if self.bar is not None:
            self.bar.close()
