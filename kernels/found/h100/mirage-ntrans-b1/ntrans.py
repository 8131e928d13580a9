# ntrans: launched on 8 blocks of 4 warps, 3 stages.
# reads h float16[8, 4096], x float16[8, 4096], a float16[8, 4096]
# writes out float16[8, 4096]
import triton
import triton.language as tl


@triton.jit
def ntrans(h_ptr, x_ptr, a_ptr, out_ptr):
    """out[8, 4096].

    Blocks: i by 1. Loops: j by 4096, j by 4096, j by 4096.
    """
    i = tl.program_id(0)  # 8 blocks
    sum0 = tl.zeros((4096,), tl.float32)  # sum[j] (h[i, j] * h[i, j])
    j_lane = tl.arange(0, 4096)
    h = tl.load(h_ptr + i * 4096 + j_lane)  # h[i, j]
    h_f32 = h.to(tl.float32)  # [j]
    mul = h_f32 * h_f32  # [j]
    sum0 = sum0 + mul
    j_lane_2 = tl.arange(0, 4096)
    x = tl.load(x_ptr + i * 4096 + j_lane_2)  # x[i, j]
    a = tl.load(a_ptr + i * 4096 + j_lane_2)  # a[i, j]
    h_2 = tl.load(h_ptr + i * 4096 + j_lane_2)  # h[i, j]
    j_lane_3 = tl.arange(0, 4096)
    x_2 = tl.load(x_ptr + i * 4096 + j_lane_3)  # x[i, j]
    a_2 = tl.load(a_ptr + i * 4096 + j_lane_3)  # a[i, j]
    sum0_all = tl.sum(sum0, 0)  # sum over the lanes
    # sum[j] ((x[i, j] + (a[i, j] * ...)) * (x[i, j] + (a[i, j] * ...)))
    sum1 = tl.zeros((4096,), tl.float32)
    x_f32 = x.to(tl.float32)  # [j]
    a_f32 = a.to(tl.float32)  # [j]
    h_2_f32 = h_2.to(tl.float32)  # [j]
    add = sum0_all + 9.999999974752427e-07  # []
    rsqrt = tl.rsqrt(add)  # []
    mul_2 = h_2_f32 * rsqrt  # [j]
    sub = mul_2 - x_f32  # [j]
    mul_3 = a_f32 * sub  # [j]
    add_2 = x_f32 + mul_3  # [j]
    mul_4 = add_2 * add_2  # [j]
    sum1 = sum1 + mul_4
    sum1_all = tl.sum(sum1, 0)  # sum over the lanes
    x_2_f32 = x_2.to(tl.float32)  # [j]
    a_2_f32 = a_2.to(tl.float32)  # [j]
    h_3 = tl.load(h_ptr + i * 4096 + j_lane_3)  # h[i, j]
    h_3_f32 = h_3.to(tl.float32)  # [j]
    mul_5 = h_3_f32 * rsqrt  # [j]
    sub_2 = mul_5 - x_2_f32  # [j]
    mul_6 = a_2_f32 * sub_2  # [j]
    add_3 = x_2_f32 + mul_6  # [j]
    add_4 = sum1_all + 9.999999974752427e-07  # []
    rsqrt_2 = tl.rsqrt(add_4)  # []
    mul_7 = add_3 * rsqrt_2  # [j]
    # out[i, j]
    tl.store(out_ptr + i * 4096 + j_lane_3, mul_7.to(tl.float16))
