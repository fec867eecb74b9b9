"""What lies beneath a write root once the job of ``Site.spec`` is published, and once its journal is closed."""

IMAGE = ["R", "R/root.img", "R/root.img.blake3", "R/root.img.manifest.json"]
PUBLISHED = [".blockjobs", ".blockjobs/.R.journal.new", ".blockjobs/R.journal", ".blockjobs/R.lock", *IMAGE]
SETTLED = [".blockjobs", ".blockjobs/settled", ".blockjobs/settled/R.journal"]
