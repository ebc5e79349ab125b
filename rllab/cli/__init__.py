"""The command `rllab`: a trunk that finds its subcommands through entry points, and one module for each of them."""
