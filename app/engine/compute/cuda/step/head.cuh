// Scores of the vocabulary, and the best token.

// Rows of the head, as a lane reads them: a score is what each makes of the last row of numbers.
struct Rows {
    uint4 held[HEAD_ROWS][CHUNKS];

    __device__ __forceinline__ void take(const u16* head, int id, int end) {
#pragma unroll
        for (int row = 0; row < HEAD_ROWS; row++)
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; chunk++)
                held[row][chunk] = read_once(
                    head + (long long)min(id + row, end - 1) * WIDTH + (chunk * 32 + threadIdx.x % 32) * 8
                );
    }
};

__device__ __forceinline__ void keep_better(float& best, int& best_id, float other, int other_id) {
    if (other > best || (other == best && other_id < best_id)) {
        best = other;
        best_id = other_id;
    }
}

// Tells the scores of some tokens, and keeps the best of them: of equals the first; what is no number is above all.
__device__ __forceinline__ void score(
    const Rows& rows, const float (&held)[CHUNKS * 8], float* scores, int id, int end, float& best, int& best_id
) {
    float found[HEAD_ROWS];
#pragma unroll
    for (int row = 0; row < HEAD_ROWS; row++) {
        found[row] = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) found[row] += dot_8(rows.held[row][chunk], &held[chunk * 8]);
    }
#pragma unroll
    for (int row = 0; row < HEAD_ROWS; row++) {
        const float value = sum_of_warp(found[row]);
        if (id + row >= end) continue;
        if (threadIdx.x % 32 == row) scores[id + row] = value;
        keep_better(best, best_id, value != value ? INFINITY : value, id + row);
    }
}

// The last row's norm, the scores, and this block's best token, kept by each warp for itself.
__device__ __forceinline__ void score_all(Shared& s, Mail& mail) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, size = (int)s.step.vocabulary;
    const int of_block = (size + BLOCKS - 1) / BLOCKS, end = min(size, (int)(blockIdx.x + 1) * of_block);
    const int stride = WARPS * HEAD_ROWS, begin = blockIdx.x * of_block + warp * HEAD_ROWS;
    float best = -INFINITY, held[CHUNKS * 8];
    int best_id = size;
    Rows rows, next;
    if (begin < end) rows.take(s.step.head, begin, end);  // while the last row is on its way
    add_row(s, mail, MAIL_DOWN);
    await_barrier(&s.ready[0], LAYERS & 1);
    take_normed(s, s.last_norm, s.last_offset, held);
    if (blockIdx.x == 0 && warp == 0) {
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const float* of = &held[chunk * 8];
            reinterpret_cast<uint4*>(s.step.hidden)[chunk * 32 + lane] = {
                narrow_pair(of[0], of[1]), narrow_pair(of[2], of[3]), narrow_pair(of[4], of[5]),
                narrow_pair(of[6], of[7]),
            };
        }
    }
    for (int id = begin; id < end; id += 2 * stride) {
        if (id + stride < end) next.take(s.step.head, id + stride, end);
        score(rows, held, s.step.scores, id, end, best, best_id);
        if (id + stride >= end) break;
        if (id + 2 * stride < end) rows.take(s.step.head, id + 2 * stride, end);
        score(next, held, s.step.scores, id + stride, end, best, best_id);
    }
    if (lane == 0) {
        s.best[warp] = best;
        s.best_id[warp] = best_id;
    }
    meet_all();
}

// The best token of all blocks, told to the host and fed to the next step.
__device__ __forceinline__ void choose(Shared& s, Mail& mail, int position) {
    const int thread = threadIdx.x;
    float best = -INFINITY;
    int best_id = (int)s.step.vocabulary;
    mail.entries = s.step.mail + LAYERS * MAIL;
    if (thread == 0) {
        for (int warp = 0; warp < WARPS; warp++) keep_better(best, best_id, s.best[warp], s.best_id[warp]);
        mail.send(blockIdx.x, __float_as_uint(best), (u32)best_id, 0);
    }
    if (blockIdx.x != 0 || thread >= GATHERING) return;
    if (thread < BLOCKS) {
        const uint4 found = mail.await(thread);
        const float value = __uint_as_float(found.x);
        best = value != value ? INFINITY : value;
        best_id = (int)found.y;
    }
    for (int mask = 16; mask; mask >>= 1) {
        const float other = __shfl_xor_sync(0xffffffffu, best, mask);
        const int other_id = __shfl_xor_sync(0xffffffffu, best_id, mask);
        keep_better(best, best_id, other, other_id);
    }
    if (thread % 32 == 0) {
        s.best[WARPS + thread / 32] = best;
        s.best_id[WARPS + thread / 32] = best_id;
    }
    meet(2, GATHERING);
    if (thread) return;
    for (int warp = WARPS; warp < WARPS + GATHERING / 32; warp++)
        keep_better(best, best_id, s.best[warp], s.best_id[warp]);
    const bool is_finite = best > -INFINITY && best < INFINITY;
    *s.step.best = is_finite ? best_id : -1;
    *s.step.id = is_finite ? best_id : 0;
    *s.step.position = min((long long)position + 1, s.step.position_max);
    *s.step.mark = (mail.mark + 1) & 0xffffffffull;
}
