# lora: launched on 128 blocks of 2 warps, 3 stages.
# reads x float16[16, 256], w float16[256, 4096], a float16[256, 16], b float16[16, 4096]
# writes out float16[16, 4096]
import triton
import triton.language as tl


@triton.jit
def lora(x_ptr, w_ptr, a_ptr, b_ptr, out_ptr):
    """out[16, 4096].

    Blocks: i by 16, k by 32. Loops: none.
    """
    k_start = tl.program_id(0) * 32  # 128 blocks
    i_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 256 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + x_at)  # x[i, j]
    k_lane = tl.arange(0, 32)
    w_at = j_lane[:, None] * 4096 + k_lane[None, :]  # [j, k]
    w = tl.load(w_ptr + k_start + w_at)  # w[j, k]
    l_lane = tl.arange(0, 16)
    a_at = j_lane[:, None] * 16 + l_lane[None, :]  # [j, l]
    a = tl.load(a_ptr + a_at)  # a[j, l]
    b_at = l_lane[:, None] * 4096 + k_lane[None, :]  # [l, k]
    b = tl.load(b_ptr + k_start + b_at)  # b[l, k]
    dot = tl.dot(x, w)  # sum[j] (x[i, j] * w[j, k])
    dot_2 = tl.dot(x, a)  # sum[j] (x[i, j] * a[j, l])
    dot_2_f16 = dot_2.to(tl.float16)  # [i, l]
    dot_3 = tl.dot(dot_2_f16, b)  # sum[l] (sum[j] ... * b[l, k])
    add = dot + dot_3  # [i, k]
    out_at = i_lane[:, None] * 4096 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + k_start + out_at, add.to(tl.float16))
