# rmsnorm_out: launched on 96 blocks of 8 warps, 3 stages.
# reads x float16[16, 4096], w float16[4096, 6144], t0 float32[16]
# writes out float16[16, 6144]
import triton
import triton.language as tl


@triton.jit
def rmsnorm_out(x_ptr, w_ptr, t0_ptr, out_ptr):
    """out[16, 6144].

    Blocks: i by 16, k by 64. Loops: j by 256.
    """
    k_start = tl.program_id(0) * 64  # 96 blocks
    sum0 = tl.zeros((16, 64), tl.float32)  # sum[j] (x[i, j] * w[j, k])
    i_lane = tl.arange(0, 16)
    j_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 4096 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 64)
    w_at = j_lane[:, None] * 6144 + k_lane[None, :]  # [j, k]
    t0 = tl.load(t0_ptr + i_lane)  # t0[i]
    for j_start in range(0, 4096, 256):
        x = tl.load(x_ptr + j_start + x_at)  # x[i, j]
        w = tl.load(w_ptr + k_start + j_start * 6144 + w_at)  # w[j, k]
        sum0 = tl.dot(x, w, sum0)
    mul = t0 * 0.000244140625  # [i]
    add = mul + 9.999999974752427e-07  # [i]
    rsqrt = tl.rsqrt(add)  # [i]
    mul_2 = rsqrt[:, None] * sum0  # [i, k]
    out_at = i_lane[:, None] * 6144 + k_lane[None, :]  # [i, k]
    # out[i, k]
    tl.store(out_ptr + k_start + out_at, mul_2.to(tl.float16))
