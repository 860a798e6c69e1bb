"""The `swapstats` command line and the laptop's supervisor."""
