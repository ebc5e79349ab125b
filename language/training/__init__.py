"""Supervised training of the models: one loop, its schedules, its problems."""
