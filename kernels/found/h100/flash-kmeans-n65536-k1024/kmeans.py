# kmeans: launched on 256 blocks of 8 warps, 3 stages.
# reads c float32[1024, 64], x float32[65536, 64]
# writes out int32[65536]
import triton
import triton.language as tl


@triton.jit
def min_nan(a, b):
    """The smaller of two numbers; NaN if one is."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def kmeans(c_ptr, x_ptr, out_ptr):
    """out[65536].

    Blocks: i by 256. Loops: k by 64.
    """
    i_start = tl.program_id(0) * 256  # 256 blocks
    # argmin[k] (sum[j] (c[k, j] * c[k, j]) - (sum[j] ... * 2))
    argmin0 = tl.full((256,), float("inf"), tl.float32)
    argmin0_at = tl.full((256,), 0, tl.int32)
    k_lane = tl.arange(0, 64)
    j_lane = tl.arange(0, 64)
    c_at = k_lane[:, None] * 64 + j_lane[None, :]  # [k, j]
    i_lane = tl.arange(0, 256)
    x_at = i_lane[:, None] * 64 + j_lane[None, :]  # [i, j]
    x = tl.load(x_ptr + i_start * 64 + x_at)  # x[i, j]
    for k_start in range(0, 1024, 64):
        c = tl.load(c_ptr + k_start * 64 + c_at)  # c[k, j]
        mul = c * c  # [k, j]
        sum = tl.sum(mul, 1)  # sum[j] (c[k, j] * c[k, j])
        c_t = tl.permute(c, (1, 0))  # [j, k]
        dot = tl.dot(x, c_t, input_precision="tf32")  # sum[j] (x[i, j] * c[k, j])
        mul_2 = dot * 2.0  # [i, k]
        sub = sum[None, :] - mul_2  # [i, k]
        min = tl.reduce(sub, 1, min_nan)  # min over k
        k = k_start + k_lane  # k
        place = tl.where((sub == min[:, None]) | (sub != sub), k[None, :], 2147483647)  # k of the best
        argmin = tl.min(place, 1)  # argmin over k
        argmin0_better = (min < argmin0) | ((min != min) & (argmin0 == argmin0))  # [i]
        argmin0_at = tl.where(argmin0_better, argmin, argmin0_at)
        argmin0 = tl.where(argmin0_better, min, argmin0)
    # out[i]
    tl.store(out_ptr + i_start + i_lane, argmin0_at)
