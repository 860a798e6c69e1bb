"""The laptop's supervisor: starts the processes that a cluster would run in pods, and keeps them running."""
