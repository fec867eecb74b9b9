"""Cuts: the source as it was at one instant, read in place of the live source, and the freezing of guests for a cut."""
