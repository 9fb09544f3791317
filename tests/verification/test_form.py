import os
import sys

import numpy as np
import pytest
import torch

from matmulbench.verification.form import poisoned


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone fills what it hands out")
def test_memory_that_was_never_set_shows_in_the_kernels_process_and_not_in_what_it_forks():
    with poisoned((2, 2), torch.float32):
        assert np.empty(2**26, np.uint8)[2**25] == 0xFF
        child = os.fork()
        if not child:
            os._exit(int(np.empty(2**26, np.uint8)[2**25]))
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
