/* What compilers spell differently. */
#ifndef CDROP_COMPILER_H
#define CDROP_COMPILER_H

#define CDROP_TEXT_(x) #x
#define CDROP_TEXT(x) CDROP_TEXT_(x)
#define CDROP_PRAGMA(x) _Pragma(#x)

/* Functions between these two may use the named instructions, whatever the compiler's flags: no -march is needed, and
 * the rest of the library still runs on any CPU. */
#if defined(__clang__)
#define CDROP_TARGET_BEGIN(features)                                                                                   \
    CDROP_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define CDROP_TARGET_END CDROP_PRAGMA(clang attribute pop)
#define CDROP_UNROLL CDROP_PRAGMA(clang loop unroll(full))
#define CDROP_INLINE __attribute__((always_inline))
#elif defined(__GNUC__)
#define CDROP_TARGET_BEGIN(features) CDROP_PRAGMA(GCC push_options) CDROP_PRAGMA(GCC target(features))
#define CDROP_TARGET_END CDROP_PRAGMA(GCC pop_options)
#define CDROP_UNROLL CDROP_PRAGMA(GCC unroll 16)
#define CDROP_INLINE __attribute__((always_inline))
#else
#define CDROP_TARGET_BEGIN(features)
#define CDROP_TARGET_END
#define CDROP_UNROLL
#define CDROP_INLINE
#endif

/* Asks for the cache line of an address in the second-level cache. */
#define CDROP_CACHE_LINE 64
#if defined(__GNUC__) || defined(__clang__)
#define CDROP_FETCH(address) __builtin_prefetch((address), 0, 2)
#else
#define CDROP_FETCH(address) ((void)(address))
#endif

/* The extension hides its symbols but those of the thread count, which threadpoolctl looks for. */
#if defined(_WIN32)
#define CDROP_EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define CDROP_EXPORT __attribute__((visibility("default")))
#else
#define CDROP_EXPORT
#endif

#endif
