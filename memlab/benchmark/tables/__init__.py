"""``memlab bench-tables``: many tables, several methods, the same splits."""
