"""The data sets: two that scikit-learn embeds, and MNIST from files or a download."""

from matmulbench.data.embedded import breast_cancer, digits
from matmulbench.data.fetch import fetch_mnist
from matmulbench.data.mnist_files import Mnist, mnist
from matmulbench.data.readers import DataError

__all__ = ["DataError", "Mnist", "breast_cancer", "digits", "fetch_mnist", "mnist"]
