"""Pre-training of a backbone of our own."""
