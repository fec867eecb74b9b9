"""The broker as both planes use it: names of tasks and queues, settings of Celery, the transport."""
