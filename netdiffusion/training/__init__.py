"""Training in PyTorch; the only part of the package that imports torch.

Nothing here is imported until a model is trained: sampling never needs torch.
"""

from __future__ import annotations
