"""Language models that learn from preferences and other rewards, by the agents of `rllab`."""
