/* The inner loops of encoding and of search, called by loops.py.
 *
 * Each user is worked through alone, in one order, by operations that round alike on every processor (no
 * fused multiply-add, no library's exp). So an answer has the same bits alone, in any batch, anywhere.
 *
 * Nothing is allocated and no library is called: callers give the room to work in.
 */

#include <stdint.h>

/* How many rows are multiplied while they are in the nearest cache. */
#define ROWS 32

/* For loops.py: the digest of what this was compiled from, and what room it takes to multiply rows. */
const char source[] = SOURCE;
const int64_t rows_at_once = ROWS;

typedef double f64x4 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));
typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));
typedef int64_t i64x4 __attribute__((vector_size(32)));

#define INLINE static inline __attribute__((always_inline))
#define LOAD(type, from) ({ type loaded_; __builtin_memcpy(&loaded_, (from), sizeof loaded_); loaded_; })
#define STORE(into, value) __builtin_memcpy((into), &(value), sizeof(value))

/* Every exported function is compiled twice: for processors with 256-bit vectors, and for any. */
#if defined(__x86_64__)
#include <cpuid.h>
static int has_wide_vectors(void) {
    static int known = -1;
    int wide = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (wide < 0) {
        unsigned a, b, c, d, low, high;
        wide = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE);
        if (wide) {
            __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            wide = (low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
        }
        __atomic_store_n(&known, wide, __ATOMIC_RELAXED);
    }
    return wide;
}
#define EXPORT(result, name, parameters, arguments)                                                       \
    __attribute__((target("avx2"))) static result name##_wide parameters { return name##_body arguments; } \
    static result name##_any parameters { return name##_body arguments; }                                  \
    result name parameters { return has_wide_vectors() ? name##_wide arguments : name##_any arguments; }
#else
#define EXPORT(result, name, parameters, arguments) \
    result name parameters { return name##_body arguments; }
#endif

INLINE float sum_of(f32x8 lanes) {
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

INLINE f32x8 choose(i32x8 which, f32x8 yes, f32x8 no) {
    return (f32x8)(((i32x8)yes & which) | ((i32x8)no & ~which));
}

INLINE int is_any(i32x8 which) {
    i64x4 halves = (i64x4)which;
    return (halves[0] | halves[1] | halves[2] | halves[3]) != 0;
}

/* The sum of products of two vectors of any length. */
INLINE double dot(const double *a, const double *b, int64_t length) {
    f64x4 lanes = {0};
    int64_t i = 0;
    for (; i + 4 <= length; i += 4) lanes += LOAD(f64x4, a + i) * LOAD(f64x4, b + i);
    double sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    for (; i < length; i++) sum += a[i] * b[i];
    return sum;
}

/* e to the power of each lane, -87 to 0, within two units in the last place: Taylor's series on what is left of a
 * whole power of two. */
INLINE f32x8 exp_of(f32x8 x) {
    const float shift = 0x1.8p23f;
    static const float terms[] = {1.f / 5040, 1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f};
    f32x8 shifted = x * 0x1.715476p0f + shift;
    f32x8 whole = shifted - shift;
    f32x8 left = (x - whole * 0x1.62e4p-1f) - whole * 0x1.7f7d1cp-20f;
    f32x8 power = (f32x8){0} + terms[0];
    for (int i = 1; i < 8; i++) power = power * left + terms[i];
    i32x8 scale = (((i32x8)shifted) + 127) << 23;
    return power * (f32x8)scale;
}

/* weights[m] = share of exp(logits[m] * sharpness) where shown[m] is 1, and 0 where it is 0; one at least is
 * shown. movies is a multiple of 8. */
INLINE void softmax(int64_t movies, const float *logits, float sharpness, const float *shown, float *weights) {
    f32x8 highest = (f32x8){0} - 3e38f;
    for (int64_t m = 0; m < movies; m += 8) {
        f32x8 logit = LOAD(f32x8, logits + m) * sharpness;
        highest = choose((logit > highest) & (LOAD(f32x8, shown + m) > 0), logit, highest);
    }
    float top = highest[0];
    for (int i = 1; i < 8; i++) top = highest[i] > top ? highest[i] : top;
    f32x8 total = {0};
    for (int64_t m = 0; m < movies; m += 8) {
        f32x8 below = LOAD(f32x8, logits + m) * sharpness - top;
        i32x8 counts = (below > -87) & (LOAD(f32x8, shown + m) > 0);
        f32x8 power = choose(counts, exp_of(choose(counts, below, (f32x8){0})), (f32x8){0});
        total += power;
        STORE(weights + m, power);
    }
    float scale = 1 / sum_of(total);
    for (int64_t m = 0; m < movies; m += 8) {
        f32x8 weight = LOAD(f32x8, weights + m) * scale;
        STORE(weights + m, weight);
    }
}

/* Adds the weighted products of rows' coordinates, each pair once, to the lower triangle of products
 * (width, width). rows, weighted: (count, width), width a multiple of 16. */
INLINE void add_products(int64_t count, int64_t width, const float *weighted, const float *rows, float *products) {
    for (int64_t row = 0; row < width; row += 4)
        for (int64_t column = 0; column < row + 4; column += 16) {
            float *into = products + row * width + column;
            f32x8 left[4], right[4];
            for (int i = 0; i < 4; i++) {
                left[i] = LOAD(f32x8, into + i * width);
                right[i] = LOAD(f32x8, into + i * width + 8);
            }
            for (int64_t m = 0; m < count; m++) {
                f32x8 near = LOAD(f32x8, rows + m * width + column);
                f32x8 far = LOAD(f32x8, rows + m * width + column + 8);
                for (int i = 0; i < 4; i++) {
                    left[i] += near * weighted[m * width + row + i];
                    right[i] += far * weighted[m * width + row + i];
                }
            }
            for (int i = 0; i < 4; i++) {
                STORE(into + i * width, left[i]);
                STORE(into + i * width + 8, right[i]);
            }
        }
}

/* sums (width) = the weighted sum of rows (count, width); count is even. */
INLINE void sum_rows(int64_t count, int64_t width, const float *weights, const float *rows, float *sums) {
    for (int64_t i = 0; i < width; i += 16) {
        f32x8 even_near = {0}, even_far = {0}, odd_near = {0}, odd_far = {0};
        for (int64_t m = 0; m < count; m += 2) {
            const float *even = rows + m * width + i, *odd = even + width;
            even_near += LOAD(f32x8, even) * weights[m];
            even_far += LOAD(f32x8, even + 8) * weights[m];
            odd_near += LOAD(f32x8, odd) * weights[m + 1];
            odd_far += LOAD(f32x8, odd + 8) * weights[m + 1];
        }
        even_near += odd_near;
        even_far += odd_far;
        STORE(sums + i, even_near);
        STORE(sums + i + 8, even_far);
    }
}

/* Solves matrix @ x = right, by Cholesky's decomposition of the lower triangle; both are overwritten, right by x.
 * No eigenvalue, and so no pivot, is below `least` but by rounding. */
INLINE void solve(int64_t size, int64_t width, double *matrix, double *right, double least) {
    for (int64_t row = 0; row < size; row++) {
        double *of_row = matrix + row * width;
        for (int64_t column = 0; column < row; column++) {
            const double *of_column = matrix + column * width;
            of_row[column] = (of_row[column] - dot(of_row, of_column, column)) * of_column[column];
        }
        double pivot = of_row[row] - dot(of_row, of_row, row);
        of_row[row] = 1 / __builtin_sqrt(pivot > least ? pivot : least); /* to multiply by */
        right[row] = (right[row] - dot(of_row, right, row)) * of_row[row];
    }
    for (int64_t row = size - 1; row >= 0; row--) {
        const double *of_row = matrix + row * width;
        right[row] *= of_row[row];
        for (int64_t column = 0; column < row; column++) right[column] -= of_row[column] * right[row];
    }
}

/* mean (width) and covariance (width, width) of vectors (movies, width) under weights of sum 1, ridge on the
 * diagonal. Deviations from the mean are multiplied: of the vectors themselves, what little they vary would be lost
 * by rounding. room: (2 * ROWS + width) * width. */
INLINE void vary(
    int64_t movies, int64_t width, const float *weights, const float *vectors, double ridge, float *mean,
    double *covariance, float *room
) {
    float *products = room, *deviations = products + width * width, *weighted = deviations + ROWS * width;
    for (int64_t i = 0; i < width * width; i++) products[i] = 0;
    sum_rows(movies, width, weights, vectors, mean);
    for (int64_t start = 0; start < movies; start += ROWS) {
        int64_t count = movies - start < ROWS ? movies - start : ROWS;
        for (int64_t m = 0; m < count; m++)
            for (int64_t i = 0; i < width; i += 8) {
                f32x8 deviation = LOAD(f32x8, vectors + (start + m) * width + i) - LOAD(f32x8, mean + i);
                f32x8 share = deviation * weights[start + m];
                STORE(deviations + m * width + i, deviation);
                STORE(weighted + m * width + i, share);
            }
        add_products(count, width, weighted, deviations, products);
    }
    for (int64_t i = 0; i < width * width; i++) covariance[i] = products[i];
    for (int64_t i = 0; i < width; i++) covariance[i * width + i] += ridge;
}

/* SoftmaxProjection.nearest: see projection.py.
 *
 * vectors: (padded, width), padded the movies to a multiple of 8, width the size to one of 16, filled up by 0.
 * scores, hidden: (users, movies). found: (users, size).
 * doubles: (width + 2) * width. floats: 4 * padded + (width + 2 * ROWS + 2) * width. */
INLINE void project_body(
    int64_t users, int64_t movies, int64_t size, int64_t padded, int64_t width, const float *vectors,
    const float *scores, const uint8_t *hidden, double most_hidden, float temperature, double ridge, float flatter,
    float spread, double longest_step, double shortest_bound, float *found, double *doubles, float *floats
) {
    double *covariance = doubles, *user = covariance + width * width, *step = user + width;
    float *logits = floats, *shown = logits + padded, *weights = shown + padded, *pulls = weights + padded,
          *mean = pulls + padded, *wanted = mean + width, *room = wanted + width;
    for (int64_t m = movies; m < padded; m++) logits[m] = shown[m] = 0;
    for (int64_t u = 0; u < users; u++, scores += movies, hidden += movies, found += size) {
        int64_t out = 0;
        for (int64_t m = 0; m < movies; m++) out += hidden[m];
        int all = out >= most_hidden * movies;
        float count = all ? movies : movies - out;
        for (int64_t m = 0; m < movies; m++) {
            shown[m] = all || !hidden[m];
            logits[m] = scores[m] / temperature;
        }

        softmax(padded, logits, 1 / flatter, shown, weights);
        f32x8 lanes = {0};
        for (int64_t m = 0; m < padded; m += 8) {
            f32x8 weight = (1 - spread) * LOAD(f32x8, weights + m) + spread / count * LOAD(f32x8, shown + m);
            lanes += weight * LOAD(f32x8, logits + m);
            STORE(weights + m, weight);
        }
        float middle = sum_of(lanes);
        for (int64_t m = 0; m < padded; m++) pulls[m] = weights[m] * (logits[m] - middle);
        sum_rows(padded, width, pulls, vectors, wanted);
        for (int64_t i = 0; i < width; i++) user[i] = wanted[i];
        vary(padded, width, weights, vectors, ridge, mean, covariance, room);
        solve(size, width, covariance, user, ridge);

        softmax(padded, logits, 1, shown, weights);
        sum_rows(padded, width, weights, vectors, wanted);
        for (int64_t i = 0; i < width; i++) mean[i] = user[i];
        for (int64_t m = 0; m < padded; m++) {
            f32x8 products = {0};
            for (int64_t i = 0; i < width; i += 8)
                products += LOAD(f32x8, mean + i) * LOAD(f32x8, vectors + m * width + i);
            pulls[m] = sum_of(products);
        }
        softmax(padded, pulls, 1, shown, weights);
        vary(padded, width, weights, vectors, ridge, mean, covariance, room);
        for (int64_t i = 0; i < width; i++) step[i] = (double)wanted[i] - mean[i];
        solve(size, width, covariance, step, ridge);

        double bound = longest_step * __builtin_sqrt(dot(user, user, size)) + shortest_bound;
        double length = __builtin_sqrt(dot(step, step, size));
        double share = length > bound ? bound / length : 1;
        for (int64_t i = 0; i < size; i++) found[i] = (user[i] + step[i] * share) * temperature;
    }
}
EXPORT(
    void, project,
    (int64_t users, int64_t movies, int64_t size, int64_t padded, int64_t width, const float *vectors,
     const float *scores, const uint8_t *hidden, double most_hidden, float temperature, double ridge, float flatter,
     float spread, double longest_step, double shortest_bound, float *found, double *doubles, float *floats),
    (users, movies, size, padded, width, vectors, scores, hidden, most_hidden, temperature, ridge, flatter, spread,
     longest_step, shortest_bound, found, doubles, floats)
)

/* features.best_scores of one row: the mean of its `best` highest, which are counted by a byte of their bits after
 * the other; at least `least`, and `share` of the largest number. */
INLINE float best_mean(int64_t count, const float *scores, int64_t best, float share, float least) {
    if (best > count) best = count;
    uint32_t known = 0, mask = 0;
    int64_t wanted = best; /* of those whose bits begin as is known */
    float largest = 0;
    for (int64_t i = 0; i < count; i++) {
        float size = scores[i] < 0 ? -scores[i] : scores[i];
        largest = size > largest ? size : largest;
    }
#define ORDER(score) ({ uint32_t bits_; __builtin_memcpy(&bits_, &(score), 4); bits_ >> 31 ? ~bits_ : bits_ | 1u << 31; })
    for (int shift = 24; shift >= 0; shift -= 8) {
        int32_t counts[256];
        for (int byte = 0; byte < 256; byte++) counts[byte] = 0;
        for (int64_t i = 0; i < count; i++) {
            uint32_t order = ORDER(scores[i]);
            counts[order >> shift & 255] += (order & mask) == known;
        }
        uint32_t byte = 255;
        for (; counts[byte] < wanted; byte--) wanted -= counts[byte];
        known |= byte << shift;
        mask |= 255u << shift;
    }
    double sum = 0;
    float lowest = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t order = ORDER(scores[i]);
        sum += order > known ? scores[i] : 0;
        lowest = order == known ? scores[i] : lowest;
    }
    float mean = (sum + (double)lowest * wanted) / best;
    least = share * largest > least ? share * largest : least;
    return mean > least ? mean : least;
}

/* features.best_scores. scores: (users, count). means: (users). */
INLINE void best_means_body(
    int64_t users, int64_t count, const float *scores, int64_t best, float share, float least, float *means
) {
    for (int64_t u = 0; u < users; u++) means[u] = best_mean(count, scores + u * count, best, share, least);
}
EXPORT(
    void, best_means,
    (int64_t users, int64_t count, const float *scores, int64_t best, float share, float least, float *means),
    (users, count, scores, best, share, least, means)
)

/* UserEncoder's scores of landmarks: see features.py. weights, places: of ratings. successors: (told, landmarks).
 * shares: (users, genres). directions: (genres, landmarks). scores, rated: (users, landmarks). */
INLINE void score_body(
    int64_t users, const int64_t *offsets, const double *weights, const int64_t *places, int64_t landmarks,
    const float *successors, int64_t genres, const float *shares, const float *directions, int64_t best, float share,
    float least, float *scores, uint8_t *rated
) {
    for (int64_t u = 0; u < users; u++, scores += landmarks, rated += landmarks, shares += genres) {
        for (int64_t m = 0; m < landmarks; m++) scores[m] = rated[m] = 0;
        for (int64_t r = offsets[u]; r < offsets[u + 1]; r++) {
            const float *follow = successors + places[r] * landmarks;
            float weight = weights[r];
            for (int64_t m = 0; m < landmarks; m++) scores[m] += weight * follow[m];
            if (0 < places[r] && places[r] <= landmarks) rated[places[r] - 1] = 1;
        }
        float scale = 1 / best_mean(landmarks, scores, best, share, least);
        for (int64_t m = 0; m < landmarks; m++) scores[m] *= scale;
        for (int64_t g = 0; g < genres; g++) {
            const float *direction = directions + g * landmarks;
            for (int64_t m = 0; m < landmarks; m++) scores[m] += shares[g] * direction[m];
        }
    }
}
EXPORT(
    void, score,
    (int64_t users, const int64_t *offsets, const double *weights, const int64_t *places, int64_t landmarks,
     const float *successors, int64_t genres, const float *shares, const float *directions, int64_t best,
     float share, float least, float *scores, uint8_t *rated),
    (users, offsets, weights, places, landmarks, successors, genres, shares, directions, best, share, least, scores,
     rated)
)

/* loops.flag_sums. weights: (kinds, ratings). flags: (movies, width) of 0 and 1. sums: (users, kinds, width). */
INLINE void sum_flags_body(
    int64_t users, const int64_t *offsets, int64_t kinds, int64_t ratings, const double *weights,
    const int64_t *rows, int64_t width, const uint8_t *flags, double *sums
) {
    for (int64_t u = 0; u < users; u++)
        for (int64_t kind = 0; kind < kinds; kind++, sums += width) {
            for (int64_t i = 0; i < width; i++) sums[i] = 0;
            for (int64_t r = offsets[u]; r < offsets[u + 1]; r++) {
                const uint8_t *of_movie = flags + rows[r] * width;
                double weight = weights[kind * ratings + r];
                for (int64_t i = 0; i < width; i++) sums[i] += weight * of_movie[i];
            }
        }
}
EXPORT(
    void, sum_flags,
    (int64_t users, const int64_t *offsets, int64_t kinds, int64_t ratings, const double *weights,
     const int64_t *rows, int64_t width, const uint8_t *flags, double *sums),
    (users, offsets, kinds, ratings, weights, rows, width, flags, sums)
)

/* loops.weighted_ridge. table: (movies, size). precision: (size, size). found: (users, size).
 * doubles: (width + 1) * width. floats: (width + 2 * ROWS) * width; width is the size to a multiple of 16. */
INLINE void regress_body(
    int64_t users, const int64_t *offsets, const int64_t *rows, int64_t size, int64_t width, const float *table,
    const double *targets, const double *weights, const double *precision, double least, float *found,
    double *doubles, float *floats
) {
    double *matrix = doubles, *right = matrix + width * width;
    float *products = floats, *plain = products + width * width, *weighted = plain + ROWS * width;
    for (int64_t i = 0; i < 2 * ROWS * width; i++) plain[i] = 0;
    for (int64_t u = 0; u < users; u++, found += size) {
        for (int64_t i = 0; i < width; i++) right[i] = 0;
        for (int64_t row = 0; row < size; row++)
            for (int64_t i = 0; i < size; i++) matrix[row * width + i] = precision[row * size + i];
        for (int64_t start = offsets[u]; start < offsets[u + 1]; start += ROWS) {
            int64_t count = offsets[u + 1] - start < ROWS ? offsets[u + 1] - start : ROWS;
            for (int64_t r = 0; r < count; r++) {
                const float *of_movie = table + rows[start + r] * size;
                double target = targets[start + r], weight = weights[start + r];
                float single = weight;
                for (int64_t i = 0; i < size; i++) {
                    plain[r * width + i] = of_movie[i];
                    weighted[r * width + i] = of_movie[i] * single;
                    right[i] += of_movie[i] * (weight * target);
                }
            }
            for (int64_t i = 0; i < width * width; i++) products[i] = 0;
            add_products(count, width, weighted, plain, products);
            for (int64_t row = 0; row < size; row++)
                for (int64_t i = 0; i <= row; i++) matrix[row * width + i] += products[row * width + i];
        }
        solve(size, width, matrix, right, least);
        for (int64_t i = 0; i < size; i++) found[i] = right[i];
    }
}
EXPORT(
    void, regress,
    (int64_t users, const int64_t *offsets, const int64_t *rows, int64_t size, int64_t width, const float *table,
     const double *targets, const double *weights, const double *precision, double least, float *found,
     double *doubles, float *floats),
    (users, offsets, rows, size, width, table, targets, weights, precision, least, found, doubles, floats)
)

/* Of eight rows, the sum of each one's lanes. */
INLINE f32x8 sums_of(const f32x8 *rows) {
#define HALVE(a, b) (__builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + \
                     __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15))
#define QUARTER(a, b) (__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + \
                       __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
    f32x8 low = QUARTER(HALVE(rows[0], rows[1]), HALVE(rows[2], rows[3]));
    f32x8 high = QUARTER(HALVE(rows[4], rows[5]), HALVE(rows[6], rows[7]));
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
}

/* Inner products of a vector and eight rows. */
INLINE f32x8 scores_of(const float *rows, int64_t width, const float *user) {
    f32x8 sums[8];
    for (int r = 0; r < 8; r++) sums[r] = LOAD(f32x8, rows + r * width) * LOAD(f32x8, user);
    for (int64_t i = 8; i < width; i += 8) {
        f32x8 of_user = LOAD(f32x8, user + i);
        for (int r = 0; r < 8; r++) sums[r] += LOAD(f32x8, rows + r * width + i) * of_user;
    }
    return sums_of(sums);
}

/* The inner product in double precision, rounded: what counts for the order. */
INLINE float exact_score(const float *row, const float *user, int64_t width) {
    f64x4 lanes = {0};
    for (int64_t i = 0; i < width; i += 4)
        lanes += __builtin_convertvector(LOAD(f32x4, row + i), f64x4) *
                 __builtin_convertvector(LOAD(f32x4, user + i), f64x4);
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

/* Whether row is among the excluded, which ascend. */
INLINE int is_among(int64_t row, const int64_t *excluded, int64_t count) {
    while (count > 1) {
        int64_t half = count / 2;
        excluded += excluded[half] <= row ? half : 0;
        count -= half;
    }
    return count && *excluded == row;
}

/* Whether of two found, at places a and b, the first is the worse: by score, then by row. */
INLINE int is_worse(const int64_t *rows, const float *scores, int64_t a, int64_t b) {
    return scores[a] < scores[b] || (scores[a] == scores[b] && rows[a] > rows[b]);
}

INLINE void swap(int64_t *rows, float *scores, int64_t a, int64_t b) {
    int64_t row = rows[a];
    float score = scores[a];
    rows[a] = rows[b], scores[a] = scores[b];
    rows[b] = row, scores[b] = score;
}

/* Lets what lies at the root of a heap, whose root is the worst, sink to where it belongs. */
INLINE void sink(int64_t count, int64_t *rows, float *scores) {
    for (int64_t place = 0, child; (child = 2 * place + 1) < count; place = child) {
        if (child + 1 < count && is_worse(rows, scores, child + 1, child)) child++;
        if (!is_worse(rows, scores, child, place)) break;
        swap(rows, scores, child, place);
    }
}

/* Puts a row into the heap of the best so far, at most k of them. Rows come ascending. */
INLINE int64_t keep(int64_t found, int64_t k, float score, int64_t row, int64_t *rows, float *scores) {
    if (found == k) {
        if (score > scores[0]) {
            rows[0] = row, scores[0] = score;
            sink(k, rows, scores);
        }
        return k;
    }
    int64_t place = found;
    rows[place] = row, scores[place] = score;
    for (int64_t parent; place > 0 && is_worse(rows, scores, place, parent = (place - 1) / 2); place = parent)
        swap(rows, scores, place, parent);
    return found + 1;
}

/* Turns a heap into a list, the best first. */
INLINE void sort_found(int64_t found, int64_t *rows, float *scores) {
    while (found > 1) {
        swap(rows, scores, 0, --found);
        sink(found, rows, scores);
    }
}

/* How many rows are compared with each of some users while they are in the nearest cache. */
#define BLOCK 128

/* ExactIndex.search: see index.py.
 *
 * embeddings: (count, width), width a multiple of 8; vectors: (users, width). excluded: rows, those of user u ascending
 * at bounds[u] to bounds[u + 1]. masks: (any, count); mask_of[u] is which of them says what may be found, -1 for none.
 * rows, scores: (users, most), most the largest k. found: (users). */
INLINE void search_body(
    int64_t users, int64_t count, int64_t width, const float *embeddings, const float *vectors, const int64_t *k,
    const int64_t *bounds, const int64_t *excluded, const int64_t *mask_of, const uint8_t *masks, float rounding,
    int64_t most, int64_t *rows, float *scores, int64_t *found
) {
    for (int64_t u = 0; u < users; u++) found[u] = 0;
    for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t end = count - start < BLOCK ? count : start + BLOCK;
        for (int64_t u = 0; u < users; u++) {
            const float *user = vectors + u * width;
            const uint8_t *passing = mask_of[u] < 0 ? 0 : masks + mask_of[u] * count;
            int64_t *of_user = rows + u * most;
            float *best = scores + u * most;
            float floor = found[u] == k[u] ? best[0] - rounding : -__builtin_inff();
            for (int64_t first = start; first < end; first += 8) {
                const float *from = embeddings + first * width;
                f32x8 near = (f32x8){0} - __builtin_inff();
                if (first + 8 > end)
                    for (int64_t r = 0; first + r < end; r++) near[r] = exact_score(from + r * width, user, width);
                else
                    near = width == 32 ? scores_of(from, 32, user) /* unrolled */ : scores_of(from, width, user);
                i32x8 better = near > floor;
                if (!is_any(better)) continue;
                for (int64_t r = 0; r < 8 && first + r < end; r++) {
                    int64_t row = first + r;
                    if (!better[r] || (passing && !passing[row])) continue;
                    if (is_among(row, excluded + bounds[u], bounds[u + 1] - bounds[u])) continue;
                    float score = exact_score(embeddings + row * width, user, width);
                    found[u] = keep(found[u], k[u], score, row, of_user, best);
                    if (found[u] == k[u]) floor = best[0] - rounding;
                }
            }
        }
    }
    for (int64_t u = 0; u < users; u++) sort_found(found[u], rows + u * most, scores + u * most);
}
EXPORT(
    void, search,
    (int64_t users, int64_t count, int64_t width, const float *embeddings, const float *vectors, const int64_t *k,
     const int64_t *bounds, const int64_t *excluded, const int64_t *mask_of, const uint8_t *masks, float rounding,
     int64_t most, int64_t *rows, float *scores, int64_t *found),
    (users, count, width, embeddings, vectors, k, bounds, excluded, mask_of, masks, rounding, most, rows, scores,
     found)
)
