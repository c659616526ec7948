"""A trained memory over HTTP: one process, JSON, and a page. ``memlab serve`` starts it."""
