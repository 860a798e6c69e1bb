"""What a person sees while `swapstats dev` runs: numbers read from the API, drawn on a terminal or as plain lines."""
