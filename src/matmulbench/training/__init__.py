"""What a faster matrix product buys a real training. Importing this loads no torch."""

from matmulbench.training.tasks import TASKS, Task, find_task

__all__ = ["TASKS", "Task", "find_task"]
