# rmsnorm: launched on 2 x 32 blocks of 4 warps, 3 stages.
# reads x float16[16, 1024], w float16[1024, 1024]
# writes out float16[16, 1024]
import triton
import triton.language as tl


@triton.jit
def rmsnorm(x_ptr, w_ptr, out_ptr):
    """out[16, 1024].

    Blocks: i by 8, k by 32. Loops: j by 256, j by 256.
    """
    i_start = tl.program_id(0) * 8  # 2 blocks
    k_start = tl.program_id(1) * 32  # 32 blocks
    sum0 = tl.zeros((16, 256), tl.float32)  # sum[j] (x[i, j] * x[i, j])
    i_lane = tl.arange(0, 16)
    i_mask = i_lane < 8  # i < 16
    j_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 1024 + j_lane[None, :]  # [i, j]
    for j_start in tl.range(0, 1024, 256, num_stages=3):
        x = tl.load(  # x[i, j]
            x_ptr + i_start * 1024 + j_start + x_at,
            mask=i_mask[:, None],
            other=0.0,
            cache_modifier=".ca",
        )
        x_f32 = x.to(tl.float32)  # [i, j]
        mul = x_f32 * x_f32  # [i, j]
        sum0 = sum0 + mul
    sum0_all = tl.sum(sum0, 1)  # sum over the lanes
    sum1 = tl.zeros((16, 32), tl.float32)  # sum[j] ((x[i, j] * rsqrt(...)) * w[j, k])
    j_lane_2 = tl.arange(0, 256)
    x_at_2 = i_lane[:, None] * 1024 + j_lane_2[None, :]  # [i, j]
    k_lane = tl.arange(0, 32)
    w_at = j_lane_2[:, None] * 1024 + k_lane[None, :]  # [j, k]
    mul_2 = sum0_all * 0.0009765625  # [i]
    add = mul_2 + 9.999999974752427e-07  # [i]
    rsqrt = tl.rsqrt(add)  # [i]
    for j_start_2 in range(0, 1024, 256):
        # x[i, j]
        x_2 = tl.load(x_ptr + i_start * 1024 + j_start_2 + x_at_2, mask=i_mask[:, None], other=0.0)
        w = tl.load(w_ptr + k_start + j_start_2 * 1024 + w_at)  # w[j, k]
        dot = tl.dot(x_2, w)  # the step's part
        mul_3 = dot * rsqrt[:, None]  # [i, k]
        sum1 = sum1 + mul_3
    out_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(
        out_ptr + i_start * 1024 + k_start + out_at,
        sum1.to(tl.float16),
        mask=i_mask[:, None],
    )
