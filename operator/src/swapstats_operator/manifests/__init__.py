"""The objects that an instance is made of, as server-side apply takes them: only what is ours is named. Pure."""
