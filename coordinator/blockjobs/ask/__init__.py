"""Questions to hosts with a waiting asker: the content is a record of the registry, named by a message to the host."""
