// Norms, and products of a row of numbers with a block's share of a matrix.

// What all blocks found of a row of numbers is added to it. All threads meet here.
__device__ __forceinline__ void add_row(Shared& s, Mail& mail, int place) {
    for (int entry = threadIdx.x; entry < BLOCKS * ROW_ENTRIES; entry += THREADS) {
        const int block = entry / ROW_ENTRIES, first = entry % ROW_ENTRIES * 3;
        const uint4 three = mail.await(place + block * APART(ROW_ENTRIES) + entry % ROW_ENTRIES);
        const u32 numbers[3] = {three.x, three.y, three.z};
#pragma unroll
        for (int at = 0; at < 3; at++)
            if (first + at < OF_ROW) s.row[block * OF_ROW + first + at] += __uint_as_float(numbers[at]);
    }
    meet_all();
}

// The numbers of a row that a lane multiplies with: 8 of each chunk of 256.
__device__ __forceinline__ void take_row(const float* row, float (&held)[CHUNKS * 8]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const float4* place = reinterpret_cast<const float4*>(row + (chunk * 32 + lane) * 8);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float4 four = place[half];
            float* to = &held[chunk * 8 + half * 4];
            to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
        }
    }
}

// The same after the layer norm, which every warp works out for itself.
__device__ __forceinline__ void take_normed(
    const Shared& s, const u16* norm, const u16* offset, float (&held)[CHUNKS * 8]
) {
    const int lane = threadIdx.x % 32;
    take_row(s.row, held);
    float total = 0.0f, spread = 0.0f;
#pragma unroll
    for (int at = 0; at < CHUNKS * 8; at++) total += held[at];
    const float mean = sum_of_warp(total) / WIDTH;
#pragma unroll
    for (int at = 0; at < CHUNKS * 8; at++) {
        held[at] -= mean;
        spread += held[at] * held[at];
    }
    const float inverse = 1.0f / sqrtf(sum_of_warp(spread) / WIDTH + s.step.epsilon);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        uint4 scales = reinterpret_cast<const uint4*>(norm)[chunk * 32 + lane];
        uint4 offsets = reinterpret_cast<const uint4*>(offset)[chunk * 32 + lane];
        const u32 by[4] = {scales.x, scales.y, scales.z, scales.w};
        const u32 to[4] = {offsets.x, offsets.y, offsets.z, offsets.w};
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            float& one = held[chunk * 8 + 2 * pair];
            float& other = held[chunk * 8 + 2 * pair + 1];
            one = one * inverse * low(by[pair]) + low(to[pair]);
            other = other * inverse * high(by[pair]) + high(to[pair]);
        }
    }
}

__device__ __forceinline__ float dot_8(uint4 weights, const float* held) {
    const u32 of[4] = {weights.x, weights.y, weights.z, weights.w};
    float even = low(of[0]) * held[0] + low(of[1]) * held[2] + low(of[2]) * held[4] + low(of[3]) * held[6];
    float odd = high(of[0]) * held[1] + high(of[1]) * held[3] + high(of[2]) * held[5] + high(of[3]) * held[7];
    return even + odd;
}

// Eight numbers, each to be summed over eight lanes: the lane gets one of the sums, that of `summed_by`.
__device__ __forceinline__ int summed_by(int lane) { return (lane & 1) * 4 + (lane & 2) + (lane >> 2 & 1); }

__device__ __forceinline__ float sum_of_eight(float (&numbers)[8]) {
    const int lane = threadIdx.x;
#pragma unroll
    for (int half = 4, bit = 1; half; half >>= 1, bit <<= 1) {
        const bool is_upper = lane & bit;
#pragma unroll
        for (int at = 0; at < half; at++) {
            const float kept = is_upper ? numbers[at + half] : numbers[at];
            const float given = is_upper ? numbers[at] : numbers[at + half];
            numbers[at] = kept + __shfl_xor_sync(0xffffffffu, given, bit);
        }
    }
    return numbers[0];
}

// Of up to eight rows of weights the part of each lane, summed over the warp → which row's sum the first lanes have.
__device__ __forceinline__ int sum_rows(float (&numbers)[8]) {
    float sum = sum_of_eight(numbers);
    sum += __shfl_xor_sync(0xffffffffu, sum, 8);
    numbers[0] = sum + __shfl_xor_sync(0xffffffffu, sum, 16);
    return summed_by(threadIdx.x % 8);
}

// A warp multiplies 256 numbers of a row, 8 a lane, with those of every fourth row of weights: each row of weights is a
// matter of CHUNKS warps.
template <int ROWS> __device__ __forceinline__ void multiply(Shared& s, const u16* weights, const float (&held)[8]) {
    const int lane = threadIdx.x % 32, chunk = threadIdx.x / 32 % CHUNKS, group = threadIdx.x / 32 / CHUNKS;
#pragma unroll
    for (int begin = 0; begin < ROWS; begin += 32) {
        float numbers[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
        for (int at = 0; at < 8; at++) {
            const int row = begin + at * 4 + group;
            const u16* place = weights + row * WIDTH + chunk * 256 + lane * 8;
            if (begin + at * 4 < ROWS && row < ROWS) numbers[at] = dot_8(*reinterpret_cast<const uint4*>(place), held);
        }
        const int row = begin + sum_rows(numbers) * 4 + group;
        if (lane < 8 && row < ROWS) s.sums[chunk][row] = numbers[0];
    }
}

// The same of the inner row: a warp has 256 numbers of it too, but all rows of weights.
template <int ROWS> __device__ __forceinline__ void multiply_inner(Shared& s) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, place = warp * 256 + lane * 8;
    const uint4 of = *reinterpret_cast<const uint4*>(s.inner + place / 2);
    const float held[8] = {low(of.x), high(of.x), low(of.y), high(of.y), low(of.z), high(of.z), low(of.w), high(of.w)};
#pragma unroll
    for (int begin = 0; begin < ROWS; begin += 8) {
        float numbers[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll
        for (int at = 0; at < 8; at++)
            if (begin + at < ROWS)
                numbers[at] = dot_8(*reinterpret_cast<const uint4*>(s.down + (begin + at) * INNER + place), held);
        const int row = begin + sum_rows(numbers);
        if (lane < 8 && row < ROWS) s.sums[warp][row] = numbers[0];
    }
}

// The lane's 8 numbers of the row, by the weights of a norm; mean and spread of the warp's 256 are for `moments_of`.
__device__ __forceinline__ void take_part(Shared& s, const u16* norm, float (&held)[8]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, begin = warp % CHUNKS * 256 + lane * 8;
    const float4 four = *reinterpret_cast<const float4*>(s.row + begin);
    const float4 rest = *reinterpret_cast<const float4*>(s.row + begin + 4);
    const uint4 by = *reinterpret_cast<const uint4*>(norm + begin);
    const float numbers[8] = {four.x, four.y, four.z, four.w, rest.x, rest.y, rest.z, rest.w};
    const u32 pairs[4] = {by.x, by.y, by.z, by.w};
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        held[2 * pair] = numbers[2 * pair] * low(pairs[pair]);
        held[2 * pair + 1] = numbers[2 * pair + 1] * high(pairs[pair]);
    }
    if (warp >= CHUNKS) return;
    float total = (numbers[0] + numbers[1]) + (numbers[2] + numbers[3]), spread = 0.0f;
    total += (numbers[4] + numbers[5]) + (numbers[6] + numbers[7]);
    const float mean = sum_of_warp(total) * (1.0f / 256);
#pragma unroll
    for (int at = 0; at < 8; at++) spread += (numbers[at] - mean) * (numbers[at] - mean);
    spread = sum_of_warp(spread);
    if (lane == 0) {
        s.moments[warp][0] = mean;
        s.moments[warp][1] = spread;
    }
}

// What so many warps found for an output, by the lane that has it.
template <int PARTS> __device__ __forceinline__ float total_of(const Shared& s, int row) {
    float found[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int part = 0; part < PARTS; part++) found[part % 4] += s.sums[part][row];
    return (found[0] + found[1]) + (found[2] + found[3]);
}

// Mean and 1 / deviation of the row.
__device__ __forceinline__ float2 moments_of(const Shared& s) {
    float mean = 0.0f, spread = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) mean += s.moments[chunk][0];
    mean *= 1.0f / CHUNKS;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const float off = s.moments[chunk][0] - mean;
        spread += s.moments[chunk][1] + 256.0f * off * off;
    }
    return make_float2(mean, rsqrtf(spread * (1.0f / WIDTH) + s.step.epsilon));
}

// An output of a matrix behind a norm: the norm of a row times weights, from the row itself times norm and weights.
__device__ __forceinline__ float normed(const Shared& s, float2 moments, int tail, int padded, int row) {
    return moments.y * (total_of<CHUNKS>(s, row) - moments.x * s.tail[tail + row]) + s.tail[tail + padded + row];
}

// What this block adds to the row, by its first warp: what so many warps found, and the bias.
template <int PARTS> __device__ __forceinline__ void send_row(Shared& s, const Mail& mail, int place, int tail) {
    for (int row = threadIdx.x; row < OF_ROW; row += 32) s.found[row] = total_of<PARTS>(s, row) + s.tail[tail + row];
    __syncwarp();
    mail.send_all(place + blockIdx.x * APART(ROW_ENTRIES), s.found, ROW_ENTRIES);
}
