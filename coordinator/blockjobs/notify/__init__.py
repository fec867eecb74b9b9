"""Delivery of one message to one URL, in a separate process that is killed after a time limit."""
