/* The harness of the C tests: counted checks, buffers between pages that trap, elements of either type, and every SIMD
 * path of this machine. Each test_*.c is its own program. */
#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "../../src_c/cpu.h"

/* Counts a check; one that fails prints where, the case last named by check_case, and the message;
 * compiled with CHECK_STOPS it ends the program. */
#define CHECK(condition, ...) ((condition) ? check_passed() : check_failed(__FILE__, __LINE__, __VA_ARGS__))

/* Where a program is slow, emulated or watched by a sanitizer, it takes a part of each kind of its cases. */
#if defined(CHECK_SHORT)
#define IN_SHORT(number, part) ((number) % (part) == 0)
#else
#define IN_SHORT(number, part) ((void)(number), 1)
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))

void check_passed(void);
void check_failed(const char *file, int line, const char *message, ...) __attribute__((format(printf, 3, 4)));
void check_case(const char *name, ...) __attribute__((format(printf, 1, 2)));

/* Prints "N passed, N failed" and gives the exit code. */
int check_report(void);

/* How many checks have failed. */
size_t check_failures(void);

/* `bytes` bytes filled with a pattern. The end of three in four, and the beginning of the others, touches a page that
 * traps; a write on the other side is found when they are given back, all at once. */
void *guarded(size_t bytes);
void *guarded_copy(const void *from, size_t bytes);
void guarded_release(void);

/* What the library's malloc and calloc are here (see the Makefile): how many were taken, and the number of the one that
 * fails, or 0. */
extern atomic_int check_taken, check_refused;
void *check_malloc(size_t bytes);
void *check_calloc(size_t n, size_t bytes);

/* Its own sequence, not the library's. */
uint64_t random_bits(void);
double random_between(double low, double high);
size_t random_below(size_t n);

/* ---- Elements of either type, as doubles --------------------------------------------------------------------- */

#define DTYPES 2
#define DTYPE_NAME(t) ((t) == CDROP_FLOAT64 ? "f64" : "f32")

static inline size_t size_of(cdrop_dtype t) { return t == CDROP_FLOAT64 ? sizeof(double) : sizeof(float); }

static inline double get(cdrop_dtype t, const void *p, size_t i)
{
    return t == CDROP_FLOAT64 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static inline void put(cdrop_dtype t, void *p, size_t i, double value)
{
    if (t == CDROP_FLOAT64)
        ((double *)p)[i] = value;
    else
        ((float *)p)[i] = (float)value;
}

/* What the type makes of a double, and of a fused multiply-add of its numbers: by the CPU's instruction where it has
 * one, because not all C libraries are exact. */
static inline double rounded(cdrop_dtype t, double value) { return t == CDROP_FLOAT64 ? value : (double)(float)value; }
double fused(cdrop_dtype t, double a, double b, double c);

int has_fused_instruction(void);
float fused_instruction_f32(float a, float b, float c);
double fused_instruction_f64(double a, double b, double c);

/* The first of n elements whose bits differ, or n. All NaNs are one. */
size_t first_difference(cdrop_dtype t, const void *a, const void *b, size_t n);

/* FNV-1a (Fowler, Noll and Vo) of elements, or of integers as 64-bit elements: the same on machines of either byte
 * order. A hash begins as HASH_OF_NOTHING. */
#define HASH_OF_NOTHING UINT64_C(0xcbf29ce484222325)
uint64_t hash_elements(uint64_t hash, cdrop_dtype t, const void *p, size_t n);

/* Notes what a comparison was of; says at its end whether most of it was not zero. Zeros agree too easily. */
void check_compared(cdrop_dtype t, const void *p, size_t n);
void check_mostly_nonzero(const char *comparison);

/* A guarded array: numbers of up to `size` of both signs, each with probability `density`, zeros else. */
void *random_array(cdrop_dtype t, size_t n, double density, double size);

/* Puts NaN, infinities, zeros, denormals and the largest numbers at random places. */
void add_special_values(cdrop_dtype t, void *p, size_t n);

/* A guarded mask with the padding bits 0; lines x cdrop_words(units). */
uint64_t *random_mask(size_t lines, size_t units, double density);

static inline int bit_at(const uint64_t *bits, size_t i) { return (int)(bits[i / 64] >> (i % 64) & 1); }

/* ---- SIMD paths ---------------------------------------------------------------------------------------------- */

enum { MOST_PATHS = 5 };

/* All paths of this machine, the reference (scalar) first; in addition to those of cdrop_simd_usable, the portable
 * scalar path where the CPU has a better one. */
size_t all_paths(const cdrop_path *paths[MOST_PATHS]);

static inline const cdrop_kernels *kernels_of(const cdrop_path *path, cdrop_dtype t)
{
    return t == CDROP_FLOAT64 ? path->f64 : path->f32;
}

#endif
