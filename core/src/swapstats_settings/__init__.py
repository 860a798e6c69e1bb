"""What a process takes from its surroundings, and how it gets to its servers: the same for all processes.

A Secret's key is the file ``<folder>/<name>/<key>``. ``folder`` is ``$SWAPSTATS_SECRETS_DIR`` unless a caller says
another, as the operator does, which has no files until it writes them.
"""
