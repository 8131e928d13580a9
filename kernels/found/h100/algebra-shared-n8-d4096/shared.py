# shared: launched on 64 blocks of 4 warps, 3 stages.
# reads x float16[8, 4096], wq float16[4096, 1024], wk float16[4096, 1024], wv float16[4096, 1024]
# writes out0 float16[8, 1024], out1 float16[8, 1024], out2 float16[8, 1024]
import triton
import triton.language as tl


@triton.jit
def shared(x_ptr, wq_ptr, wk_ptr, wv_ptr, out0_ptr, out1_ptr, out2_ptr):
    """out0[8, 1024], out1[8, 1024], out2[8, 1024].

    Blocks: i by 8, k by 16. Loops: j by 512.
    """
    k_start = tl.program_id(0) * 16  # 64 blocks
    sum0 = tl.zeros((16, 16), tl.float32)  # sum[j] (x[i, j] * wq[j, k])
    sum1 = tl.zeros((16, 16), tl.float32)  # sum[j] (x[i, j] * wk[j, k])
    sum2 = tl.zeros((16, 16), tl.float32)  # sum[j] (x[i, j] * wv[j, k])
    i_lane = tl.arange(0, 16)
    i_mask = i_lane < 8  # i < 8
    j_lane = tl.arange(0, 512)
    x_at = i_lane[:, None] * 4096 + j_lane[None, :]  # [i, j]
    k_lane = tl.arange(0, 16)
    wq_at = j_lane[:, None] * 1024 + k_lane[None, :]  # [j, k]
    for j_start in range(0, 4096, 512):
        x = tl.load(x_ptr + j_start + x_at, mask=i_mask[:, None], other=0.0)  # x[i, j]
        wq = tl.load(wq_ptr + k_start + j_start * 1024 + wq_at)  # wq[j, k]
        sum0 = tl.dot(x, wq, sum0)
        wk = tl.load(wk_ptr + k_start + j_start * 1024 + wq_at)  # wk[j, k]
        sum1 = tl.dot(x, wk, sum1)
        wv = tl.load(wv_ptr + k_start + j_start * 1024 + wq_at)  # wv[j, k]
        sum2 = tl.dot(x, wv, sum2)
    out0_at = i_lane[:, None] * 1024 + k_lane[None, :]  # [i, k]
    # out0[i, k]
    tl.store(out0_ptr + k_start + out0_at, sum0.to(tl.float16), mask=i_mask[:, None])
    # out1[i, k]
    tl.store(out1_ptr + k_start + out0_at, sum1.to(tl.float16), mask=i_mask[:, None])
    # out2[i, k]
    tl.store(out2_ptr + k_start + out0_at, sum2.to(tl.float16), mask=i_mask[:, None])
