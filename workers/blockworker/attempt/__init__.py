"""One attempt at a job: its claim, the points where it obeys, its reports, and how it ends."""
