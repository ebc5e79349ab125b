"""Tuned hyper-parameters per agent and environment, as data."""
