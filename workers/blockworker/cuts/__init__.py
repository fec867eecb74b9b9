"""Cuts: the state of a source at an instant, read in place of the source, and the freezing of guests for a cut."""
