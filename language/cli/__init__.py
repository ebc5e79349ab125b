"""The subcommands of `rllab language`."""
