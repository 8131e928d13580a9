# lora: launched on 2 x 64 blocks of 4 warps, 3 stages.
# reads x float16[128, 256], w float16[256, 4096], a float16[256, 16], b float16[16, 4096]
# writes out float16[128, 4096]
import triton
import triton.language as tl


@triton.jit
def lora(x_ptr, w_ptr, a_ptr, b_ptr, out_ptr):
    """out[128, 4096].

    Blocks: i by 64, k by 64. Loops: none.
    """
    i_start = tl.program_id(0) * 64  # 2 blocks
    k_start = tl.program_id(1) * 64  # 64 blocks
    i_lane = tl.arange(0, 64)
    j_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 256 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 256 + x_at, eviction_policy="evict_last")  # x[i, j]
    k_lane = tl.arange(0, 64)
    w_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    w = tl.load(w_ptr + k_start + w_at, eviction_policy="evict_last")  # w[j, k]
    l_lane = tl.arange(0, 64)
    l_mask = l_lane < 16  # l < 16
    a_at = j_lane[:, None] * 16 + l_lane[None, :]  # [j, l]
    # a[j, l]
    a = tl.load(a_ptr + a_at, mask=l_mask[None, :], other=0.0, eviction_policy="evict_last")
    b_at = l_lane[:, None] * 4096 + k_lane[None, :]  # [l, k]
    b = tl.load(  # b[l, k]
        b_ptr + k_start + b_at,
        mask=l_mask[:, None],
        other=0.0,
        eviction_policy="evict_last",
    )
    dot = tl.dot(x, w)  # sum[j] (x[i, j] * w[j, k])
    dot_2 = tl.dot(x, a)  # sum[j] (x[i, j] * a[j, l])
    dot_2_f16 = dot_2.to(tl.float16)  # [i, l]
    dot_2_f16_in = tl.where(l_mask[None, :], dot_2_f16, 0.0)  # [i, l]
    dot_3 = tl.dot(dot_2_f16_in, b)  # sum[l] (sum[j] ... * b[l, k])
    add = dot + dot_3  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + i_start * 4096 + k_start + out_at, add.to(tl.float16))
