"""Following tokens: the pure machine (`machine`), and what it keeps and says (`model`)."""
