"""`swapstats token`: one token, read from the API once or followed over its WebSocket."""
