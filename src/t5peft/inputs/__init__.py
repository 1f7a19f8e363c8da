"""What a run reads: reviews, tokenizer, backbone."""
