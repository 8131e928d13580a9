# sinkhorn_t1: launched on 512 blocks of 1 warps, 3 stages.
# reads y float32[8192, 64]
# writes t1 float32[8192]
import triton
import triton.language as tl


@triton.jit
def sinkhorn_t1(y_ptr, t1_ptr):
    """t1[8192].

    Blocks: k by 16. Loops: none.
    """
    k_start = tl.program_id(0) * 16  # 512 blocks
    k_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 64)
    y_at = k_lane[:, None] * 64 + j_lane[None, :]  # [k, j]
    y = tl.load(y_ptr + k_start * 64 + y_at)  # y[k, j]
    mul = y * y  # [k, j]
    sum = tl.sum(mul, 1)  # sum[j] (y[k, j] * y[k, j])
    # t1[k]
    tl.store(t1_ptr + k_start + k_lane, sum)
