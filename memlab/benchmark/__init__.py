"""``memlab bench``: time and peak memory of memlab and of what a user would otherwise take, side by side."""
