"""Cuts: what a copy reads instead of its source, and how guests are frozen while cuts are made."""
