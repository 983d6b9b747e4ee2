"""The first stage on a GPU: a FAISS index moved to the device that computes the scores."""

import faiss
import numpy as np
import torch

MOST = 2048
"""The most neighbours that FAISS returns at once on a GPU."""

WORTH_IT = 100_000
"""With fewer pictures in an index the CPU is as fast."""

_SCRATCH_BYTES = 64 << 20  # FAISS would take 1.5 GB of the GPU for itself


def to_gpu(index: faiss.Index, device: torch.device) -> faiss.Index | None:
    """The index on a GPU; None if FAISS cannot use the GPU: faiss-cpu is installed, its CUDA does not fit this machine,
    or the GPU has no room.

    An index that compares exhaustively becomes half precision vectors, which are the stored descriptors themselves;
    lists stay lists. The GPU index cannot leave pictures out: the caller requests more and drops them.
    """
    if device.type != "cuda" or not hasattr(faiss, "StandardGpuResources"):
        return None
    number = device.index or 0
    try:
        if faiss.get_num_gpus() <= number:
            return None
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(_SCRATCH_BYTES)
        if isinstance(index, faiss.IndexIVF):
            return faiss.index_cpu_to_gpu(resources, number, index)
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = number, True
        flat = faiss.GpuIndexFlatIP(resources, index.d, config)
        for start in range(0, index.ntotal, 65_536):
            flat.add(index.reconstruct_n(start, min(65_536, index.ntotal - start)))
        flat.referenced_resources = resources  # lives as long as the index
    except RuntimeError:
        return None
    return flat


def search_gpu(
    index: faiss.Index, descriptor: np.ndarray, count: int, allowed: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """As recall.search_index; None if so many positions are left out that the GPU cannot answer exactly."""
    hidden = len(allowed) - int(np.count_nonzero(allowed))
    if min(count + hidden, index.ntotal) > MOST:
        return None
    similarities, positions = index.search(descriptor.astype(np.float32)[None], min(count + hidden, index.ntotal))
    kept = (positions[0] >= 0) & allowed[positions[0]]
    return positions[0][kept][:count], similarities[0][kept][:count]
