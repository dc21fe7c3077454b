// Macros of other people's headers, as a host may have seen them before chimera. What they stand for is of no matter,
// so most stand for something that compiles nowhere. The headers of the standard and of Hana come first: they are not
// ours to mend.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <boost/hana/for_each.hpp>
#include <boost/hana/tuple.hpp>
#include <boost/hana/type.hpp>
#include <cfloat>
#include <charconv>
#include <chrono>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

// These have macros themselves.
#include <complex.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// clang-format off
// Xlib
#define Above !
#define Always !
#define Below !
#define Bool int
#define Complex !
#define ControlMask !
#define Convex !
#define CursorShape !
#define False 0
#define FocusIn !
#define GrayScale !
#define KeyPress !
#define None 0L
#define Opposite !
#define Status int
#define Success 0
#define True 1
#define Unsorted !
// Qt, GLib
#define emit
#define foreach(a, b) for (a : b)
#define forever for (;;)
#define signals public
#define slots
// Unreal, macOS, Objective-C
#define BOOL !
#define FORCEINLINE !
#define INLINE !
#define NO !
#define Nil !
#define PI (3.1415926535897932f)
#define TEXT(x) L##x
#define YES !
#define check(x) { if (!(x)) !; }
#define check_noerr(x) !
#define checkf(x, ...) !
#define ensure(x) !
#define nil !
#define require(x, label) !
#define require_noerr(x, label) !
#define verify(x) !
#define verifyf(x, ...) !
// Windows
#define ABSOLUTE !
#define CONST const
#define CreateFile !
#define CreateWindow !
#define DELETE !
#define DIFFERENCE !
#define DOMAIN !
#define DrawText !
#define ERROR !
#define FALSE 0
#define GetMessage !
#define GetObject !
#define IGNORE !
#define IN
#define INFINITE !
#define LoadImage !
#define NO_ERROR !
#define OPTIONAL
#define OUT
#define OVERFLOW !
#define RELATIVE !
#define STRICT !
#define SendMessage !
#define THIS !
#define TRANSPARENT !
#define TRUE 1
#define UNDERFLOW !
#define VOID void
#define far
#define grp1 !
#define hyper !
#define interface struct
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define near
#define pascal !
#define small char
// glibc and systems of old; gnu++20 has linux and unix by itself, sysmacros.h major and minor
#undef I
#define I !
#define sun 1
// ncurses and its term.h
#define ERR !
#define OK !
#define columns !
#define lines !
#define max_pairs !
#define newline !
// Arduino
#define B0 !
#define B1 !
#define B10 !
#define DEC !
#define DEFAULT !
#define EXTERNAL !
#define F(x) !
#define HEX !
#define HIGH !
#define INPUT !
#define INTERNAL !
#define LOW !
#define OUTPUT !
#define abs(x) ((x) > 0 ? (x) : -(x))
#define bit(b) (1UL << (b))
#define constrain(x, low, high) !
#define degrees(x) !
#define lowByte(x) !
#define radians(x) !
#define round(x) ((x) >= 0 ? (long)((x) + 0.5) : (long)((x) - 0.5))
#define sq(x) !
#define word(...) makeWord(__VA_ARGS__)
// perl, ruby, R and logging
#define CHECK(x) !
#define Copy(a, b, c, d) !
#define FATAL !
#define INFO !
#define LOG(x) !
#define Move(a, b, c, d) !
#define ST(x) !
#define WARNING !
#define Zero(a, b, c) !
#define utf8_length(a, b) !
// kernel style
#define __packed __attribute__((__packed__))
#define always_inline !
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define vector_size !
// clang-format on
