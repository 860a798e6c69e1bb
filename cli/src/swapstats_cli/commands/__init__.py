"""One module per command, each with one typer function of the same name."""
