"""The subcommands of `rllab preference`."""
