"""Runs: identity, record, store; made, launched, verified, reopened."""
