"""`swapstats produce`: where events come from, what is done to them, and how they are sent at their moments."""
