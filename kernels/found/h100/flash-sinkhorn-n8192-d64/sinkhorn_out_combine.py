# sinkhorn_out_combine: launched on 128 blocks of 1 warps, 3 stages.
# reads sinkhorn_out_max0 float32[4, 8192], sinkhorn_out_sum1 float32[4, 8192]
# writes out float32[8192]
import triton
import triton.language as tl


@triton.jit
def max_nan(a, b):
    """The larger of two numbers; NaN if one is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def sinkhorn_out_combine(sinkhorn_out_max0_ptr, sinkhorn_out_sum1_ptr, out_ptr):
    """out[8192].

    Blocks: i by 64. Loops: none.
    """
    i_start = tl.program_id(0) * 64  # 128 blocks
    i_lane = tl.arange(0, 64)
    s_k_lane = tl.arange(0, 4)
    sinkhorn_out_max0_at = i_lane[:, None] + s_k_lane[None, :] * 8192  # [i, s_k]
    # sinkhorn_out_max0[s_k, i]
    sinkhorn_out_max0 = tl.load(sinkhorn_out_max0_ptr + i_start + sinkhorn_out_max0_at)
    ne = sinkhorn_out_max0 != float("-inf")  # [i, s_k]
    is_finite = (tl.abs(sinkhorn_out_max0) < float('inf'))  # [i, s_k]
    where = tl.where(is_finite, sinkhorn_out_max0, 0.0)  # [i, s_k]
    # sinkhorn_out_sum1[s_k, i]
    sinkhorn_out_sum1 = tl.load(sinkhorn_out_sum1_ptr + i_start + sinkhorn_out_max0_at)
    max = tl.reduce(sinkhorn_out_max0, 1, max_nan)  # max[s_k] sinkhorn_out_max0[s_k, i]
    is_finite_2 = (tl.abs(max) < float('inf'))  # [i]
    where_2 = tl.where(is_finite_2, max, 0.0)  # [i]
    sub = where - where_2[:, None]  # [i, s_k]
    exp = tl.exp(sub)  # [i, s_k]
    mul = exp * sinkhorn_out_sum1  # [i, s_k]
    where_3 = tl.where(ne, mul, 0.0)  # [i, s_k]
    # sum[s_k] where(ne(sinkhorn_out_max0[s_k, i], -inf), (... * sinkhorn_out_sum1[s_k, i]), 0)
    sum = tl.sum(where_3, 1)
    log = tl.log(sum)  # [i]
    add = log + where_2  # [i]
    mul_2 = (-0.05000000074505806) * add  # [i]
    # out[i]
    tl.store(out_ptr + i_start + i_lane, mul_2)
