"""The tiled kernel; :mod:`~matmulbench.ladder.tiled.kernel` opens with the idea."""
