"""`python -m t5peft`: what `accelerate launch` and `--jobs` start."""

from t5peft.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
