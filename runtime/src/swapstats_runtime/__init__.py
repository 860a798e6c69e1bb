"""What a process takes from its surroundings, how it gets to its servers, and how it is seen: the same for all.

A Secret's key is the file ``<folder>/<name>/<key>``. ``folder`` is ``$SWAPSTATS_SECRETS_DIR`` unless a caller says
another, as the operator does, which has no files until it writes them.
"""
