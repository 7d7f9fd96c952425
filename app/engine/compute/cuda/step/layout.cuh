// The shape of a step, where its tensors lie, and what a block has in its shared memory.

#define THREADS (WIDTH / 2)
#define WARPS (THREADS / 32)
#define CHUNKS (WIDTH / 256)
#define HEAD_DIM 64
#define OF_ROW (WIDTH / BLOCKS)
#define OF_QKV (3 * OF_ROW)
#define OF_UP (4 * OF_ROW)
#define INNER (4 * WIDTH)
#define PADDED(numbers) (((numbers) + 3) / 4 * 4)
#define SPAN 192
#define SPANS ((POSITIONS + SPAN - 1) / SPAN)
#define READS ((SPAN / 4 + WARPS - 1) / WARPS)
#define GATHERING ((BLOCKS + 31) / 32 * 32)
#define HEAD_ROWS (CHUNKS > 3 ? 1 : 2)
#define PATIENCE 4000000
#define PIECE 1536
#define PAUSE_NS 80

// Entries that a block sends of a part of a layer. Those of each block lie in lines of their own.
#define ENTRIES(numbers) (((numbers) + 2) / 3)
#define APART(entries) (((entries) + 7) / 8 * 8)
#define QKV_ENTRIES ENTRIES(OF_QKV)
#define ROW_ENTRIES ENTRIES(OF_ROW)
#define UP_ENTRIES ENTRIES(OF_UP / 2)
#define HEAD_ENTRIES ENTRIES(HEAD_DIM)
#define MAIL_QKV 0
#define MAIL_READ (MAIL_QKV + BLOCKS * APART(QKV_ENTRIES))
#define MAIL_PARTS (MAIL_READ + HEADS * APART(HEAD_ENTRIES))
#define MAIL_OUT (MAIL_PARTS + HEADS * SPANS * APART(HEAD_ENTRIES + 1))
#define MAIL_UP (MAIL_OUT + BLOCKS * APART(ROW_ENTRIES))
#define MAIL_DOWN (MAIL_UP + BLOCKS * APART(UP_ENTRIES))
#define MAIL (MAIL_DOWN + BLOCKS * APART(ROW_ENTRIES))

// A block's numbers of a layer: what a norm's weights and its offsets, with the bias, come to in each output of a
// matrix (see tail_of in single.py), and biases alone.
#define TAIL_QKV 0
#define TAIL_OUT (TAIL_QKV + 2 * PADDED(OF_QKV))
#define TAIL_UP (TAIL_OUT + PADDED(OF_ROW))
#define TAIL_DOWN (TAIL_UP + 2 * PADDED(OF_UP))
#define TAIL (TAIL_DOWN + PADDED(OF_ROW))

struct Layer {
    const u16 *norm_read, *qkv, *out, *norm_mlp, *up, *down;
    const float* tail;
    float scale, unused;  // of scores, by the logarithm of 2
};

struct Step {
    long long *id, *slot, *position;
    const u16 *tokens, *places, *norm, *offset, *head;
    u16 *keys, *values, *hidden;
    float* scores;
    long long* best;
    uint4* mail;
    u64* mark;
    long long slots, vocabulary, position_max;
    float epsilon, unused;
    Layer layers[LAYERS];
};

struct __align__(128) Shared {
    u16 qkv[OF_QKV * WIDTH];
    u16 out[OF_ROW * WIDTH];
    u16 up[OF_UP * WIDTH];
    u16 down[OF_ROW * INNER];
    u16 norm_read[WIDTH], norm_mlp[WIDTH], last_norm[WIDTH], last_offset[WIDTH];
    float tail[TAIL];
    float row[WIDTH];
    float read[WIDTH];
    u32 inner[INNER / 2];
    float sums[WARPS][OF_UP];
    float moments[CHUNKS][2];
    float found[3 * ENTRIES(OF_UP + HEAD_DIM)];
    float asked[HEAD_DIM];
    __align__(16) u16 added[2][HEAD_DIM];
    float parts[WARPS][HEAD_DIM + 2];
    float best[WARPS + GATHERING / 32];
    int best_id[WARPS + GATHERING / 32];
    u64 ready[4];
    int done[4];
    Step step;
};

#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "a block's share of a layer does not fit into its shared memory");
#endif
