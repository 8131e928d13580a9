# lowrank_out: launched on 64 x 2 blocks of 1 warps, 3 stages.
# reads b float16[16, 4096], t2 float32[16, 16]
# writes out float16[16, 4096]
import triton
import triton.language as tl


@triton.jit
def lowrank_out(b_ptr, t2_ptr, out_ptr):
    """out[16, 4096].

    Blocks: k by 64, l by 8. Loops: none.
    """
    k_start = tl.program_id(0) * 64  # 64 blocks
    l_start = tl.program_id(1) * 8  # 2 blocks
    l_lane = tl.arange(0, 16)
    l_mask = l_lane < 8  # l < 16
    j_lane = tl.arange(0, 16)
    t2_at = l_lane[:, None] * 16 + j_lane[None, :]  # [l, j]
    t2 = tl.load(t2_ptr + l_start * 16 + t2_at, mask=l_mask[:, None], other=0.0)  # t2[l, j]
    t2_f16 = t2.to(tl.float16)  # [l, j]
    k_lane = tl.arange(0, 64)
    b_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    b = tl.load(b_ptr + k_start + b_at)  # b[j, k]
    dot = tl.dot(t2_f16, b)  # sum[j] (b[j, k] * t2[l, j])
    out_at = l_lane[:, None] * 4096 + k_lane[None, :]  # [l, k]
    # out[l, k]
    tl.store(
        out_ptr + k_start + l_start * 4096 + out_at,
        dot.to(tl.float16),
        mask=l_mask[:, None],
    )
