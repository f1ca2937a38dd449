"""Small tensors need no threads; on a busy machine several only wait for each other."""

import torch

torch.set_num_threads(1)
