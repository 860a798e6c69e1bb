"""The laptop's decider: it observes the shards, runs the planner, and publishes what that decided.

On a cluster the operator does this, with the same planner.
"""
