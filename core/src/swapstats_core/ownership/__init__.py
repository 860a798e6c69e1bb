"""Who owns which partition: the messages about it, the planner that decides it, the rules by which it changes hands."""
