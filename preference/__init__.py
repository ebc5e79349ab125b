"""Learning from preferences: clips, comparisons, teachers, Bradley–Terry reward models, and the loop around them."""
