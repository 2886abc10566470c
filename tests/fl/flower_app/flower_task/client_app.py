"""The node's side."""

from privjax.runtimes.flower import client_app

app = client_app("flower_task.task:client")
