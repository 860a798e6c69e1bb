"""The operator: a SwapStats resource becomes a running cluster."""
