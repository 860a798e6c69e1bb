"""`swapstats convert`: a configuration file of the implementation guide's Go service as a SwapStats resource. Pure."""
