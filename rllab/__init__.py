"""Learning from rewards: rollouts, policies, agents, the loop, and runs on disk."""
