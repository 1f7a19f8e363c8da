"""An epoch and an evaluation, alike for every method."""
