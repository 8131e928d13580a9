# rms_norm: launched on 4 x 32 blocks of 8 warps, 3 stages.
# reads x float16[8, 1024], w float16[1024, 1024]
# writes out float16[8, 1024]
import triton
import triton.language as tl


@triton.jit
def rms_norm(x_ptr, w_ptr, out_ptr):
    """out[8, 1024].

    Blocks: i by 2, k by 32. Loops: j by 1024.
    """
    i_start = tl.program_id(0) * 2  # 4 blocks
    k_start = tl.program_id(1) * 32  # 32 blocks
    sum0 = tl.zeros((16, 1024), tl.float32)  # sum[j] (x[i, j] * x[i, j])
    sum1 = tl.zeros((16, 32), tl.float32)  # sum[j] (x[i, j] * w[j, k])
    i_lane = tl.arange(0, 16)
    i_mask = i_lane < 2  # i < 8
    j_lane = tl.arange(0, 1024)
    x_at = i_lane[:, None] * 1024 + j_lane[None, :]  # [i, j]
    x = tl.load(  # x[i, j]
        x_ptr + i_start * 1024 + x_at,
        mask=i_mask[:, None],
        other=0.0,
        cache_modifier=".ca",
    )
    x_f32 = x.to(tl.float32)  # [i, j]
    mul = x_f32 * x_f32  # [i, j]
    x_2 = tl.load(x_ptr + i_start * 1024 + x_at, mask=i_mask[:, None], other=0.0)  # x[i, j]
    k_lane = tl.arange(0, 32)
    w_at = j_lane[:, None] * 1024 + k_lane[None, :]  # [j, k]
    w = tl.load(w_ptr + k_start + w_at)  # w[j, k]
    sum0 = sum0 + mul
    sum1 = tl.dot(x_2, w, sum1)
    sum0_all = tl.sum(sum0, 1)  # sum over the lanes
    mul_2 = sum0_all * 0.0009765625  # [i]
    add = mul_2 + 9.999999974752427e-07  # [i]
    rsqrt = tl.rsqrt(add)  # [i]
    mul_3 = rsqrt[:, None] * sum1  # [i, k]
    out_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(
        out_ptr + i_start * 1024 + k_start + out_at,
        mul_3.to(tl.float16),
        mask=i_mask[:, None],
    )
