"""The broker for both planes: names of tasks and queues, settings of Celery, the transport."""
