# laplace_out: launched on 128 blocks of 2 warps, 3 stages.
# reads t1 float32[8192, 8]
# writes out float32[8192, 8]
import triton
import triton.language as tl


@triton.jit
def laplace_out(t1_ptr, out_ptr):
    """out[8192, 8].

    Blocks: i by 64, l by 8. Loops: none.
    """
    i_start = tl.program_id(0) * 64  # 128 blocks
    i_lane = tl.arange(0, 64)
    l_lane = tl.arange(0, 8)
    t1_at = i_lane[:, None] * 8 + l_lane[None, :]  # [i, l]
    t1 = tl.load(t1_ptr + i_start * 8 + t1_at)  # t1[i, l]
    # out[i, l]
    tl.store(out_ptr + i_start * 8 + t1_at, t1)
