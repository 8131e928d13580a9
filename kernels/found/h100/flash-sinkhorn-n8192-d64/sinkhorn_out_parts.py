# sinkhorn_out_parts: launched on 256 blocks of 4 warps, 3 stages.
# reads g float32[8192], x float32[8192, 64], t1 float32[8192], y float32[8192, 64]
# writes sinkhorn_out_max0 float32[4, 8192], sinkhorn_out_sum1 float32[4, 8192]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def round_tf32(x):
    """x plus half a unit of its tenth bit. A matrix unit cuts off what follows that bit, which
    alone would be an error twice as large and always towards zero. NaN and infinities stay.
    """
    unit = (x.to(tl.int32, bitcast=True) & -0x800000).to(tl.float32, bitcast=True)
    return x + unit * (1.0 / 2048)


@triton.jit
def sinkhorn_out_parts(g_ptr, x_ptr, t1_ptr, y_ptr, sinkhorn_out_max0_ptr, sinkhorn_out_sum1_ptr):
    """sinkhorn_out_max0[4, 8192], sinkhorn_out_sum1[4, 8192].

    Blocks: s_k by 1, i by 128. Loops: k by 64.
    """
    pid = tl.program_id(0)
    within = pid % 256
    group = (within // 256) * 4
    place = within % 256
    s_k = (group + place % 4)  # 4 blocks
    i_start = (place // 4) * 128  # 64 blocks
    max0 = tl.full((128,), float("-inf"), tl.float32)  # max[k] ((g[k] - (... - ...)) / 0.05)
    sum1 = tl.zeros((128,), tl.float32)  # sum[k] exp(((... / 0.05) - where(..., max0, 0)))
    k_first = s_k * 2048
    k_lane = tl.arange(0, 64)
    i_lane = tl.arange(0, 128)
    j_lane = tl.arange(0, 64)
    x_at = i_lane[:, None] * 64 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 64 + x_at)  # x[i, j]
    mul = x * x  # [i, j]
    sum = tl.sum(mul, 1)  # sum[j] (x[i, j] * x[i, j])
    x_tf32 = round_tf32(x)  # [i, j]
    y_at = j_lane[:, None] + k_lane[None, :] * 64  # [j, k]
    for k_start in range(k_first, k_first + 2048, 64):
        g = tl.load(g_ptr + k_start + k_lane)  # g[k]
        t1 = tl.load(t1_ptr + k_start + k_lane)  # t1[k]
        add = sum[:, None] + t1[None, :]  # [i, k]
        y = tl.load(y_ptr + k_start * 64 + y_at)  # y[k, j]
        y_tf32 = round_tf32(y)  # [j, k]
        dot = tl.dot(x_tf32, y_tf32, input_precision="tf32")  # sum[j] (x[i, j] * y[k, j])
        mul_2 = dot * 2.0  # [i, k]
        sub = add - mul_2  # [i, k]
        sub_2 = g[None, :] - sub  # [i, k]
        max = tl.reduce(sub_2, 1, max_nan)  # max over the step
        max_scaled = max * 19.99999970197678  # [i]
        max0_new = max_nan(max0, max_scaled)  # [i]
        max0_live = max0 != float("-inf")  # [i]
        is_finite = (tl.abs(max0) < float('inf'))  # [i]
        where = tl.where(is_finite, max0, 0.0)  # [i]
        is_finite_2 = (tl.abs(max0_new) < float('inf'))  # [i]
        where_2 = tl.where(is_finite_2, max0_new, 0.0)  # [i]
        sub_3 = where - where_2  # [i]
        exp = tl.exp(sub_3)  # [i]
        scale = tl.where(max0_live, exp, 0.0)  # [i]
        div = sub_2 / 0.05000000074505806  # [i, k]
        sub_4 = div - where_2[:, None]  # [i, k]
        exp_2 = tl.exp(sub_4)  # [i, k]
        sum_2 = tl.sum(exp_2, 1)  # sum over the step
        sum1 = sum1 * scale + sum_2
        max0 = max0_new
    # sinkhorn_out_max0[s_k, i]
    tl.store(sinkhorn_out_max0_ptr + i_start + s_k * 8192 + i_lane, max0)
    # sinkhorn_out_sum1[s_k, i]
    tl.store(sinkhorn_out_sum1_ptr + i_start + s_k * 8192 + i_lane, sum1)
