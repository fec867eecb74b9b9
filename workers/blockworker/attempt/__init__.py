"""An attempt at a job: claim, pause points, reports, and end."""
