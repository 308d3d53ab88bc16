// linear.glsl - bindings and epilogue of the linear*.comp

layout(constant_id = 3) const int EPILOGUE = ND_DO_NONE;

ND_IN(0, inputs)
ND_IN(1, weight)
ND_IN(2, residual)
ND_IN(3, modulation)
ND_IN(4, constant)
ND_IN_UINT(5, tokens)
ND_PARAMS(nd_linear_params);

vec4 epilogue(vec4 y, int row, int n4)
{
    if (EPILOGUE == ND_DO_SILU)
        return silu(y);
    if (EPILOGUE == ND_DO_GELU)
        return gelu(y);
    if (EPILOGUE == ND_DO_ADD)
        return residual(row * int(p.residual_stride4) + n4) + y;
    if (EPILOGUE == ND_DO_GATED) {
        int flow = int(tokens(row * TABLE_STRIDE4).x);
        int at = int(p.gate4) + n4;
        vec4 g = modulation(flow * int(p.modulation_stride4) + at);
        return residual(row * int(p.residual_stride4) + n4) +
               (g + constant(at)) * y;
    }
    return y;
}
