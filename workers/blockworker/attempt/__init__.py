"""One attempt at a job: its claim, its pause points, its reports, and its end."""
