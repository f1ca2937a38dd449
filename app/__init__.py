"""The web application around the executor: users, settings, files of the web UI, logs, the worker."""
