"""Environments: making, adapting, normalising, snapshotting and filming them. NumPy and Gymnasium only."""
