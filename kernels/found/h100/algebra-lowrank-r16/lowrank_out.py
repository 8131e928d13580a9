# lowrank_out: launched on 128 blocks of 4 warps, 3 stages.
# reads b float16[16, 4096], t2 float32[16, 16]
# writes out float16[16, 4096]
import triton
import triton.language as tl


@triton.jit
def lowrank_out(b_ptr, t2_ptr, out_ptr):
    """out[16, 4096].

    Blocks: k by 32, l by 16. Loops: none.
    """
    k_start = tl.program_id(0) * 32  # 128 blocks
    l_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 16)
    t2_at = l_lane[:, None] * 16 + j_lane[None, :]  # [l, j]
    t2 = tl.load(t2_ptr + t2_at)  # t2[l, j]
    t2_f16 = t2.to(tl.float16)  # [l, j]
    k_lane = tl.arange(0, 32)
    b_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    b = tl.load(b_ptr + k_start + b_at)  # b[j, k]
    dot = tl.dot(t2_f16, b)  # sum[j] (b[j, k] * t2[l, j])
    out_at = l_lane[:, None] * 4096 + k_lane[None, :]  # [l, k]
    # out[l, k]
    tl.store(out_ptr + k_start + out_at, dot.to(tl.float16))
