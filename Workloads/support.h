// What the workloads share: time, random numbers, options, one-line JSON output and the control signals.
//
// A workload runs as the first process of a container whose file system may hold nothing but its binary: no
// terminal, no /proc, no shell, no default signal actions. Everything here keeps to that.
#pragma once

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { PAGE = 4096, EXIT_WRONG_USE = 2, EXIT_CORRUPT = 3 };

static const uint64_t MICROSECOND = 1000, MILLISECOND = 1000 * 1000, SECOND = 1000 * 1000 * 1000;

// Time, CLOCK_MONOTONIC in nanoseconds throughout.
uint64_t now_ns(void);
void sleep_until(uint64_t instant);
struct timespec timespec_of(uint64_t nanoseconds);

// A bijection of 64 bits that mixes well (Steele, Lea and Flood: SplitMix, 2014), and a generator made of it.
static inline uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

struct random {
  uint64_t state;
};

static inline uint64_t random_next(struct random *random) { return mix(random->state += 0x9e3779b97f4a7c15); }

// A number from 0 to limit - 1.
static inline uint64_t random_below(struct random *random, uint64_t limit) {
  return (uint64_t)(((unsigned __int128)random_next(random) * limit) >> 64);
}

// Output: lines are built here and leave in one write, so that lines of several threads never mix.
struct line {
  size_t length;
  char text[32768];
};

__attribute__((format(printf, 2, 3))) void line_add(struct line *line, const char *format, ...);
void line_add_list(struct line *line, const char *format, va_list list);
// As a JSON string, with its quotes.
void line_add_string(struct line *line, const char *text);
void line_send(struct line *line);

// Ends the program with a message: wrong use, or a kernel that refuses what cannot fail.
__attribute__((format(printf, 1, 2), noreturn)) void fail(const char *format, ...);

// Options.
uint64_t parse_number(const char *option, const char *text, uint64_t lowest, uint64_t highest);
uint64_t parse_size(const char *option, const char *text);
// The index of `text` in the null-terminated `names`.
unsigned parse_choice(const char *option, const char *text, const char *const *names);

// Memory and threads that must be had. Threads start with every signal blocked but those for errors.
void *map_memory(size_t bytes, int flags);
void start_thread(void *(*body)(void *), void *argument, size_t stack);

// The control signals: SIGUSR1 asks for a verdict, SIGUSR2 resets the gaps, SIGTERM and SIGINT end.
// They are blocked everywhere but in control_wait, so nothing else in a workload is ever interrupted.
extern atomic_bool control_verdict, control_reset, control_stop;
void control_install(void);
// Sleeps for the given time at most, or until a control signal comes.
void control_wait(uint64_t nanoseconds);
