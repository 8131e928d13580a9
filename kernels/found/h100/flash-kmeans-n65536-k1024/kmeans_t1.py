# kmeans_t1: launched on 64 blocks of 4 warps, 8 stages.
# reads c float32[1024, 64]
# writes t1 float32[1024]
import triton
import triton.language as tl


@triton.jit
def kmeans_t1(c_ptr, t1_ptr):
    """t1[1024].

    Blocks: k by 16. Loops: j by 64.
    """
    k_start = tl.program_id(0) * 16  # 64 blocks
    sum0 = tl.zeros((16, 64), tl.float32)  # sum[j] (c[k, j] * c[k, j])
    k_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 64)
    c_at = k_lane[:, None] * 64 + j_lane[None, :]  # [k, j]
    c = tl.load(c_ptr + k_start * 64 + c_at)  # c[k, j]
    mul = c * c  # [k, j]
    sum0 = sum0 + mul
    sum0_all = tl.sum(sum0, 1)  # sum over the lanes
    # t1[k]
    tl.store(t1_ptr + k_start + k_lane, sum0_all)
