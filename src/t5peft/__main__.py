"""`python -m t5peft`, which `accelerate launch` needs."""

from t5peft.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
