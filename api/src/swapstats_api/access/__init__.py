"""Who may read, and how often."""
