// Attention of the one token to its row.

// A span of a head's positions, read by a block; the first one's joins what all found.
__device__ __forceinline__ void read_head(Shared& s, Mail& mail, int layer, long long slot, int position) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 8, eighth = lane % 8;
    const int head = blockIdx.x % HEADS, span = blockIdx.x / HEADS, first = span * SPAN, spans = spans_of(position);
    const long long place = of_head(s.step, layer, head, slot);
    uint4 keys[READS], values[READS];
#pragma unroll
    for (int read = 0; read < READS; read++) {
        const int held = first + (read * WARPS + warp) * 4 + group;
        const uint4 none = {0, 0, 0, 0};
        keys[read] = held < position ? read_once(s.step.keys + place + held * HEAD_DIM + eighth * 8) : none;
        values[read] = held < position ? read_once(s.step.values + place + held * HEAD_DIM + eighth * 8) : none;
    }
    if (warp < 3 && lane <= HEAD_ENTRIES) {  // queries, keys and values, a warp each; the first entry may begin before
        const int wanted = warp * WIDTH + head * HEAD_DIM, entry = wanted / 3 + lane;
        if (3 * entry < wanted + HEAD_DIM) {
            const uint4 three = mail.await(MAIL_QKV + entry / QKV_ENTRIES * APART(QKV_ENTRIES) + entry % QKV_ENTRIES);
            const u32 numbers[3] = {three.x, three.y, three.z};
#pragma unroll
            for (int at = 0; at < 3; at++) {
                const int column = 3 * entry + at - wanted;
                if (column < 0 || column >= HEAD_DIM) continue;
                const float value = __uint_as_float(numbers[at]);
                if (warp == 0) s.asked[column] = value * s.step.layers[layer].scale;
                else s.added[warp - 1][column] = (u16)narrow(value);
            }
        }
    }
    meet_all();
    float asked[8], scores[READS], most = -INFINITY, total = 0.0f, found[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
    for (int at = 0; at < 8; at++) asked[at] = s.asked[eighth * 8 + at];
#pragma unroll
    for (int read = 0; read < READS; read++) {
        const int held = first + (read * WARPS + warp) * 4 + group;
        if (held == position) {  // the new token, which the cache gets
            keys[read] = *reinterpret_cast<const uint4*>(&s.added[0][eighth * 8]);
            values[read] = *reinterpret_cast<const uint4*>(&s.added[1][eighth * 8]);
            *reinterpret_cast<uint4*>(s.step.keys + place + (long long)held * HEAD_DIM + eighth * 8) = keys[read];
            *reinterpret_cast<uint4*>(s.step.values + place + (long long)held * HEAD_DIM + eighth * 8) = values[read];
        }
        scores[read] = dot_8(keys[read], asked);
    }
#pragma unroll
    for (int mask = 1; mask < 8; mask <<= 1)
#pragma unroll
        for (int read = 0; read < READS; read++) scores[read] += __shfl_xor_sync(0xffffffffu, scores[read], mask);
#pragma unroll
    for (int read = 0; read < READS; read++) {
        if (first + (read * WARPS + warp) * 4 + group > position) scores[read] = -INFINITY;
        most = fmaxf(most, scores[read]);
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 8));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 16));
#pragma unroll
    for (int read = 0; read < READS; read++) {
        const float weight = scores[read] == -INFINITY ? 0.0f : exp2f(scores[read] - most);
        const u32 pairs[4] = {values[read].x, values[read].y, values[read].z, values[read].w};
        total += weight;
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            found[2 * pair] += weight * low(pairs[pair]);
            found[2 * pair + 1] += weight * high(pairs[pair]);
        }
    }
#pragma unroll
    for (int mask = 8; mask < 32; mask <<= 1) {
        total += __shfl_xor_sync(0xffffffffu, total, mask);
#pragma unroll
        for (int at = 0; at < 8; at++) found[at] += __shfl_xor_sync(0xffffffffu, found[at], mask);
    }
    if (group == 0) {
#pragma unroll
        for (int at = 0; at < 8; at++) s.parts[warp][eighth * 8 + at] = found[at];
    }
    if (lane == 0) {
        s.parts[warp][HEAD_DIM] = most;
        s.parts[warp][HEAD_DIM + 1] = total;
    }
    meet_all();
    if (warp) return;
    float sums[3] = {0.0f, 0.0f, 0.0f}, peak = lane < WARPS ? s.parts[lane][HEAD_DIM] : -INFINITY;
    const float own_peak = peak;
#pragma unroll
    for (int mask = 16; mask; mask >>= 1) peak = fmaxf(peak, __shfl_xor_sync(0xffffffffu, peak, mask));
    const float own = own_peak == -INFINITY ? 0.0f : exp2f(own_peak - peak);
    float weight = 0.0f;
#pragma unroll
    for (int part = 0; part < WARPS; part++) {
        const float kept = __shfl_sync(0xffffffffu, own, part);
        weight += kept * s.parts[part][HEAD_DIM + 1];
#pragma unroll
        for (int at = 0; at < 3; at++) sums[at] += kept * s.parts[part][min(3 * lane + at, HEAD_DIM - 1)];
    }
    if (span) {
        const int parts = MAIL_PARTS + (head * SPANS + span) * APART(HEAD_ENTRIES + 1);
        const bool is_sum = lane < HEAD_ENTRIES;
        if (lane <= HEAD_ENTRIES)
            mail.send(parts + lane, __float_as_uint(is_sum ? sums[0] : peak),
                      __float_as_uint(is_sum ? sums[1] : weight), __float_as_uint(sums[2]));
        return;
    }
    for (int other = 1; other < spans; other++) {
        const int parts = MAIL_PARTS + (head * SPANS + other) * APART(HEAD_ENTRIES + 1);
        const uint4 whole = mail.await(parts + HEAD_ENTRIES);
        const uint4 theirs = mail.await(parts + min(lane, HEAD_ENTRIES - 1));
        const float both = fmaxf(peak, __uint_as_float(whole.x));
        const float kept = exp2f(peak - both), joined = exp2f(__uint_as_float(whole.x) - both);
        const u32 numbers[3] = {theirs.x, theirs.y, theirs.z};
        weight = weight * kept + __uint_as_float(whole.y) * joined;
#pragma unroll
        for (int at = 0; at < 3; at++) sums[at] = sums[at] * kept + __uint_as_float(numbers[at]) * joined;
        peak = both;
    }
    const float inverse = 1.0f / weight;
    if (lane < HEAD_ENTRIES)
        mail.send(MAIL_READ + head * APART(HEAD_ENTRIES) + lane, __float_as_uint(sums[0] * inverse),
                  __float_as_uint(sums[1] * inverse), __float_as_uint(sums[2] * inverse));
}
