"""The decider: it observes the shards, runs the planner, and publishes what that decided.

The same on a laptop, where `swapstats_cli.supervisor` starts the processes, and on a cluster, where the operator does.
"""
