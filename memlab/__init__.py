"""Differentiable nearest-neighbour classification.

An encoder is trained end to end so that attention over a memory of labelled examples gives the class. Importing
``memlab`` is light: Lightning and Hydra come in only with the modules that need them.
"""

__version__ = "0.1.0"
