"""Parameter-efficient fine-tuning of T5-small on IMDB: run, explained and checked."""
