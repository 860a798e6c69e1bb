"""WebSocket: commands in, states and patches out."""
