"""A run from a composed configuration to its folder of results; sweeps and reports over several."""
