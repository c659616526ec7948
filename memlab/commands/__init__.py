"""The commands of ``memlab``: what arguments each takes. What a command needs is imported when it is run."""
