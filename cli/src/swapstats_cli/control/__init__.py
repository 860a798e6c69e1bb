"""How other commands speak with a running `swapstats dev`: its status, and what it can be asked to do."""
